"""``optiscope list``: what can be named in a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from optiscope.cli.options import as_json, data_dir_option, json_option
from optiscope.cli.terminal import terminal

__all__ = ["command"]


@click.group("list")
def command() -> None:
    """List problems, optimizers or studies."""


@command.command("problems")
@click.option(
    "--measure",
    is_flag=True,
    help="Measure seconds per epoch of the problems whose data are present, and store them.",
)
@click.option(
    "--development",
    is_flag=True,
    help="List the small problems to develop optimizers on instead.",
)
@data_dir_option
@json_option
def list_problems(
    measure: bool, development: bool, data_dir: Path | None, wants_json: bool
) -> None:
    """Problems with their data, model, parameters, batch size, epochs, speed and baseline.

    Seconds per epoch are those of SGD on this machine, as far as they were measured; the baseline
    is the best published tuned result.
    """
    from optiscope import problems
    from optiscope.study.speed import kept_seconds_per_epoch

    if measure:
        _measure(data_dir)
    seconds = kept_seconds_per_epoch()
    columns = ("name", "dataset", "model", "parameters", "batch_size", "epochs")
    rows: list[dict[str, Any]] = []
    for entry in problems.entries(development=development):
        row = {column: getattr(entry, column) for column in columns}
        row["seconds_per_epoch"] = seconds.get(entry.name)
        row["baseline"] = _baseline(entry.name)
        rows.append(row)
    if wants_json:
        click.echo(as_json(rows))
    else:
        _print_problems(rows)


def _print_problems(rows: list[dict[str, Any]]) -> None:
    """A table that fits 80 columns: data and model stand under the name."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Problems", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("problem", min_width=30)
    timed = any(row["seconds_per_epoch"] is not None for row in rows)
    for heading in ("parameters", "batch", "epochs", *["s/epoch"] * timed, "published"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        name = Text(row["name"], style="bold")
        name.append(f"\n{row['model']} · {row['dataset']}", style="dim not bold")
        figures = [_text(row[c]) for c in ("parameters", "batch_size", "epochs")]
        baseline = row["baseline"]
        published = "-" if baseline is None else baseline.split(",")[0]
        if timed:
            figures.append(_text(row["seconds_per_epoch"]))
        table.add_row(name, *figures, published)
    console = terminal()
    console.print(table)
    console.print("published: the best tuned result, of any optimizer", style="dim")


def _measure(data_dir: Path | None) -> None:
    from rich.progress import track

    from optiscope import problems
    from optiscope.data import MissingData
    from optiscope.study.speed import kept_seconds_per_epoch, measure_seconds_per_epoch

    console = terminal(stderr=True)
    kept = kept_seconds_per_epoch()
    names = [name for name in problems.names() if name not in kept]
    for name in track(names, description="measuring", console=console, transient=True):
        try:
            measure_seconds_per_epoch(name, data_dir)
        except MissingData as error:
            console.print(f"{name} is not measured: {error}", highlight=False)


def _baseline(problem: str) -> str | None:
    """The best published tuned result in words, or None."""
    from optiscope.problems.published import baselines_of

    found = baselines_of(problem)
    if not found:
        return None
    if found[0].metric.endswith("loss"):
        best = min(found, key=lambda b: b.mean)
        return f"loss {best.mean:.4g}, {best.optimizer}"
    best = max(found, key=lambda b: b.mean)
    return f"{100 * best.mean:.2f} %, {best.optimizer}"


@command.command("optimizers")
@json_option
def list_optimizers(wants_json: bool) -> None:
    """Optimizers with their defaults and the space they are tuned in."""
    from optiscope.optim import registry
    from optiscope.optim.spec import Choice

    rows = []
    for name in registry.names():
        spec = registry.get(name)
        space = {
            key: list(d.values) if isinstance(d, Choice) else [d.low, d.high]
            for key, d in spec.space.items()
        }
        rows.append(
            {"name": name, "defaults": dict(spec.defaults), "space": space, "source": spec.source}
        )
    if wants_json:
        click.echo(as_json(rows))
    else:
        _print_optimizers(rows)


def _print_optimizers(rows: list[dict[str, Any]]) -> None:
    """A table that fits 80 columns: where an optimizer comes from stands under its name."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="Optimizers", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column("optimizer", min_width=28, overflow="fold")
    table.add_column("defaults", overflow="fold")
    table.add_column("tuned in", overflow="fold")
    for row in rows:
        name = Text(row["name"], style="bold")
        name.append(f"\n{row['source']}", style="dim not bold")
        table.add_row(name, _text(row["defaults"]), _text(row["space"]))
    terminal().print(table)


@command.command("studies")
@json_option
def list_studies(wants_json: bool) -> None:
    """Studies that come with the package; run one with `optiscope bench NAME`."""
    from optiscope.study.declaration import shipped_studies

    rows = [{"name": name, "question": text} for name, text in shipped_studies().items()]
    _show("Studies", rows, wants_json)


def _show(title: str, rows: list[dict[str, Any]], wants_json: bool) -> None:
    if wants_json:
        click.echo(as_json(rows))
        return
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        numeric = all(isinstance(row[column], int) for row in rows)
        table.add_column(
            column.replace("_", " "),
            justify="right" if numeric else "left",
            no_wrap=numeric or column == "name",
        )
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    terminal().print(table)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items()) or "-"
    if isinstance(value, list):
        return f"[{', '.join(_text(v) for v in value)}]"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
