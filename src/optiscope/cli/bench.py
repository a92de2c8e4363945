"""``optiscope bench``: run a study and write its report."""

from __future__ import annotations

from pathlib import Path

import click

from optiscope.cli.options import as_json, data_dir_option, json_option

__all__ = ["command"]


@click.command("bench")
@click.argument("study")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the study's records and report [default: runs/NAME].",
)
@click.option("--workers", type=click.IntRange(min=1), help="Trials at a time [default: by cores].")
@data_dir_option
@json_option
def command(
    study: str, out: Path | None, workers: int | None, data_dir: Path | None, wants_json: bool
) -> None:
    """Run STUDY, a TOML file or the name of a shipped study.

    Tunes every algorithm on the validation split, trains the chosen hyperparameters on fresh
    seeds, and writes report.html. What is recorded is not run again: stop it at any time and give
    the same command to go on.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from optiscope.report import summary_json, summary_table, write_report
    from optiscope.study import Event, load_study, run_study

    declared = load_study(study)
    folder = out or Path("runs") / declared.name
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("trials"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=wants_json) as bar:
        task = bar.add_task(declared.name, total=None)

        def show(event: Event) -> None:
            bar.update(task, completed=event.done, total=event.total)
            if event.warning:
                bar.console.print(f"[yellow]{event.message}", highlight=False)

        try:
            kept = run_study(declared, folder, workers=workers, data_dir=data_dir, on_event=show)
        except KeyboardInterrupt:
            bar.stop()
            console.print(
                f"stopped; what is recorded stays in {folder}: give the same command to go on",
                highlight=False,
            )
            raise
    page = write_report(kept)
    if wants_json:
        click.echo(as_json(summary_json(kept)))
        return
    Console().print(summary_table(kept))
    click.echo(f"report: {page}")
