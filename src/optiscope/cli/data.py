"""``optiscope data``: list, download, check and copy data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from optiscope.cli.options import as_json, data_dir_option, json_option
from optiscope.cli.terminal import terminal, words

__all__ = ["command"]


@click.group("data")
def command() -> None:
    """List, download, check and copy data sets."""


@command.command("list")
@data_dir_option
@json_option
def list_data(data_dir: Path | None, wants_json: bool) -> None:
    """Data sets, their licences, and whether they are here."""
    from rich.table import Table

    from optiscope.data import DATASETS, MissingData, locate, resolve_data_dir

    rows: list[dict[str, Any]] = []
    for dataset in DATASETS.values():
        try:
            here: str | None = (
                locate(dataset.name, data_dir).layout.name if dataset.layouts else "package"
            )
        except MissingData:
            here = None
        rows.append(
            {
                "name": dataset.name,
                "description": dataset.description,
                "licence": dataset.licence,
                "here": here,
            }
        )
    if wants_json:
        click.echo(as_json(rows))
        return
    table = Table(title=f"Data sets in {resolve_data_dir(data_dir)}", title_justify="left")
    for column in ("name", "description", "licence", "here"):
        table.add_column(column)
    for row in rows:
        table.add_row(row["name"], row["description"], row["licence"], row["here"] or "-")
    terminal().print(table)


@command.command("fetch")
@click.argument("names", nargs=-1, required=True)
@data_dir_option
def fetch_data(names: tuple[str, ...], data_dir: Path | None) -> None:
    """Download data sets from their official places; an interrupted download is resumed."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TransferSpeedColumn,
    )

    from optiscope.data import dataset_named, fetch

    _refuse_unknown(names)
    columns = (
        words("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=terminal(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def show(name: str, received: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=received, total=total)

        for name in names:
            fetch(dataset_named(name).name, data_dir, progress=show)


@command.command("verify")
@click.argument("names", nargs=-1)
@data_dir_option
@json_option
@click.pass_context
def verify_data(
    ctx: click.Context, names: tuple[str, ...], data_dir: Path | None, wants_json: bool
) -> None:
    """Check files against their published digests; without NAMES, of all data sets found."""
    from rich.table import Table
    from rich.text import Text

    from optiscope.cli.root import ExitCode
    from optiscope.data import DATASETS, verify

    _refuse_unknown(names)
    reports = [verify(name, data_dir) for name in names or DATASETS]
    if not names:
        reports = [r for r in reports if r.complete]
    if wants_json:
        rows = [
            {
                "name": r.dataset,
                "ok": r.ok,
                "layout": r.layout,
                "files": [
                    {"path": str(f.path), "status": f.status, "detail": f.detail} for f in r.files
                ],
            }
            for r in reports
        ]
        click.echo(as_json(rows))
    else:
        table = Table(title="Data sets", title_justify="left")
        for column in ("data set", "file", "status", "detail"):
            table.add_column(column)
        for r in reports:
            if not r.files:
                table.add_row(r.dataset, "comes with scikit-learn", "ok", "")
            for f in r.files:
                colour = {"ok": "green", "wrong": "red", "missing": "red"}.get(f.status, "yellow")
                table.add_row(r.dataset, str(f.path), Text(f.status, style=colour), f.detail)
        terminal().print(table)
    ctx.exit(ExitCode.OK if all(r.ok for r in reports) else ExitCode.UNFINISHED)


@command.command("stage")
@click.argument("study")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder on this machine's own disk.",
)
@data_dir_option
@json_option
def stage_data(study: str, to: Path, data_dir: Path | None, wants_json: bool) -> None:
    """Copy the data sets of STUDY, its folder or its file, to a node's own disk.

    Prints the folder to read them from: the copy, or, where the disk has no room, the one they
    came from, with a warning. One process of a node copies while the others wait.
    """
    from optiscope.data import DATASETS, resolve_data_dir
    from optiscope.data.errors import FetchFailed
    from optiscope.data.stage import stage
    from optiscope.records import StudyFolder
    from optiscope.study import load_study
    from optiscope.study.progress import study_in

    in_folder = (Path(study) / "study.json").is_file()
    asked = study_in(StudyFolder(study)) if in_folder else load_study(study)
    names = [p.dataset for p in asked.problems if p.dataset in DATASETS]
    try:
        staged = stage(names, to, data_dir, lambda text: click.echo(text, err=True))
    except OSError as error:
        raise FetchFailed(f"cannot copy to {to}: {error.strerror or error}") from None
    if staged.reason:
        click.echo(f"no copy: {staged.reason}", err=True)
    folder = staged.folder or resolve_data_dir(data_dir)
    if wants_json:
        click.echo(as_json({"folder": str(folder), "copied": staged.copied}))
    else:
        click.echo(str(folder))


def _refuse_unknown(names: tuple[str, ...]) -> None:
    from optiscope.data import dataset_named

    for name in names:
        try:
            dataset_named(name)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
