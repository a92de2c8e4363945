"""``optiscope export``: a study's records for papers and for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from optiscope.records import StudyFolder

__all__ = ["command"]

TABLES = ("csv", "parquet", "markdown", "latex")
TRACKED = ("tensorboard", "wandb", "mlflow")


@click.command("export")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--to",
    "form",
    type=click.Choice([*TABLES, *TRACKED, "optuna"]),
    default="csv",
    show_default=True,
    help="csv, parquet: one row per trial. markdown, latex: mean and deviation over seeds. "
    "tensorboard, wandb, mlflow: one run per trial, with its curves. optuna: the tunings, for "
    "optuna-dashboard.",
)
@click.option(
    "--out",
    metavar="PLACE",
    help="File to write (parquet needs one) [default: the terminal]; folder or tracking address "
    "of a tracker [default: a folder of its name in FOLDER]; journal file, .db file or storage "
    "address for optuna [default: optuna.journal in FOLDER].",
)
def command(folder: Path, form: str, out: str | None) -> None:
    """Export the study in FOLDER as a table, or to a tracking program.

    W&B runs are written offline unless WANDB_MODE says otherwise.
    """
    from optiscope.records import StudyFolder

    study = StudyFolder(folder)
    if form in TABLES:
        _table(study, form, None if out is None else Path(out))
    elif form == "optuna":
        _tunings(study, out or str(folder / "optuna.journal"))
    else:
        _runs(study, form, out or str(folder / form))


def _runs(study: StudyFolder, form: str, place: str) -> None:
    from rich.progress import track

    from optiscope.cli.terminal import terminal
    from optiscope.records.exports.study import runs_of

    console = terminal(stderr=True)
    runs = runs_of(study)
    exported = 0
    for run in track(
        runs, "Exporting", console=console, transient=True, disable=not console.is_terminal
    ):
        exported += run.export(form, place)
    missing = len(runs) - exported
    click.echo(f"{exported} runs in {place}" + (f", {missing} not recorded yet" if missing else ""))
    look = {
        "tensorboard": f"tensorboard --logdir {place}",
        "wandb": f"wandb sync {place}/wandb/offline-run-*",
        "mlflow": f"mlflow ui --backend-store-uri {_store(form, place)}",
    }[form]
    click.echo(f"Look at them with: {look}")


def _store(form: str, place: str) -> str:
    if form != "mlflow":
        return place
    from optiscope.records.exports.mlflow import address

    return address(place)


def _tunings(study: StudyFolder, place: str) -> None:
    from optiscope.records.exports.optuna import export_tunings

    names = export_tunings(study, place)
    click.echo(f"{len(names)} tunings in {place}")
    if names:
        click.echo(f"Look at them with: optuna-dashboard {place}")


def _table(study: StudyFolder, form: str, out: Path | None) -> None:
    from optiscope.records import StoreError
    from optiscope.stats.export import latex_table, markdown_table

    try:
        if form == "parquet":
            if out is None:
                raise click.UsageError("parquet is not text: give a file with --out")
            study.frame().to_parquet(out, index=False)
            return
        if form == "csv":
            text = study.frame().to_csv(index=False)
        else:
            text = latex_table(study) if form == "latex" else markdown_table(study)
        if out is None:
            click.echo(text, nl=False)
        else:
            out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror or error}") from None
