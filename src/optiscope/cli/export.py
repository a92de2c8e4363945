"""``optiscope export``: a study's records for other programs and papers."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("export")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--to",
    "form",
    type=click.Choice(["csv", "parquet", "markdown", "latex"]),
    default="csv",
    show_default=True,
    help="csv, parquet: one row per trial. markdown, latex: mean and deviation over seeds.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; parquet needs one [default: the terminal].",
)
def command(folder: Path, form: str, out: Path | None) -> None:
    """Export the study in FOLDER as a table."""
    from optiscope.records import StoreError, StudyFolder
    from optiscope.stats.export import latex_table, markdown_table

    study = StudyFolder(folder)
    try:
        if form == "parquet":
            if out is None:
                raise click.UsageError("parquet is no text: give a file with --out")
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
