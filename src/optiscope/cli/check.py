"""``optiscope check``: look for faults before training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from optiscope.cli.options import as_json, json_option
from optiscope.errors import ExitCode, OptiscopeError, shorten
from optiscope.hints import did_you_mean
from optiscope.import_path import load

__all__ = ["command"]

ARGUMENTS = ("model", "loss", "optimizer", "train", "valid", "test", "augment", "seconds", "seed")
NEEDED = ("model", "loss", "train")


class SetupMisuse(OptiscopeError, ValueError):
    """The set-up cannot be imported, called or understood."""


@click.command("check")
@click.argument("setup", metavar="MODULE:FUNCTION")
@click.option("--seconds", type=click.FloatRange(min=1), help="About how long it may take.")
@click.option("--seed", type=int, help="Seed for everything drawn while checking.")
@click.option("--page", type=click.Path(path_type=Path, dir_okay=False), help="Also write a page.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    setup: str,
    seconds: float | None,
    seed: int | None,
    page: Path | None,
    wants_json: bool,
) -> None:
    """Check model, loss, optimizer and data before training.

    MODULE:FUNCTION names a function that returns a dictionary with the arguments of
    optiscope.check: model, loss and train, and optionally optimizer, valid, test, augment.

    Exit status: 0 nothing of severity error, 1 findings of severity error, 2 misuse.
    """
    from optiscope.doctor.check import check

    arguments = setup_arguments(setup)
    if seconds is not None:
        arguments["seconds"] = seconds
    if seed is not None:
        arguments["seed"] = seed
    report = check(**arguments)
    if page is not None:
        try:
            report.page(page)
        except OSError as error:
            raise SetupMisuse(f"cannot write {page}: {error.strerror}") from error
    if wants_json:
        click.echo(as_json(report.to_dict()))
    else:
        _print(report)
        if page is not None:
            click.echo(f"page: {page}")
    ctx.exit(ExitCode.OK if report else ExitCode.UNFINISHED)


def setup_arguments(path: str) -> dict[str, Any]:
    """The arguments that a set-up function returns.

    Raises ``SetupMisuse`` where it cannot be imported, raises, or returns something else.
    """
    function = load(path, "a function", "my_module:setup", SetupMisuse)
    try:
        values = function() if callable(function) else function
    except Exception as error:
        raise SetupMisuse(f"{path} raised {type(error).__name__}: {shorten(str(error))}") from error
    if not isinstance(values, Mapping):
        raise SetupMisuse(
            f"{path}: expected a dictionary with model, loss and train, got "
            f"{type(values).__name__} {shorten(values, 60)}"
        )
    for name in values:
        if name not in ARGUMENTS:
            raise SetupMisuse(
                f"{path}: unknown argument {shorten(name)}, {did_you_mean(name, ARGUMENTS)}"
            )
    missing = [name for name in NEEDED if name not in values]
    if missing:
        raise SetupMisuse(f"{path}: the dictionary has no {missing[0]!r}: add it")
    return dict(values)


def _print(report: Any) -> None:
    from rich.table import Table

    from optiscope.cli.terminal import terminal

    console = terminal()
    styles = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    console.print(report.verdict(), style="bold" if report else "bold red")
    for finding in report.findings:
        place = f" [{', '.join(finding.where[:3])}]" if finding.where else ""
        console.print(
            f"\n{finding.severity}: {finding.rule}{place}", style=styles[finding.severity]
        )
        console.print(f"  {finding.sentence}")
        if finding.remedy:
            console.print(f"  -> {finding.remedy}", style="dim")
        if finding.explained_by:
            console.print(f"  explained by {finding.explained_by}", style="dim")
    table = Table(title_justify="left")
    for column in ("check", "result"):
        table.add_column(column)
    table.add_column("seconds", justify="right")
    for outcome in report.outcomes:
        words = f"left out: {outcome.skipped}" if outcome.skipped else "clean"
        words = f"{outcome.findings} found" if outcome.findings else words
        table.add_row(outcome.check, words, f"{outcome.seconds:.2f}")
    console.print()
    console.print(table)
