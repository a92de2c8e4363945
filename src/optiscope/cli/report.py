"""``optiscope report``: the page and figures of a study, made again from its records."""

from __future__ import annotations

from pathlib import Path

import click

from optiscope.cli.options import as_json, json_option

__all__ = ["command"]

INCHES_PER_UNIT = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4}


def _inches(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    unit = next((u for u in INCHES_PER_UNIT if text.endswith(u)), "")
    try:
        width = float(text.removesuffix(unit)) * INCHES_PER_UNIT.get(unit, 1.0)
    except ValueError:
        width = -1.0
    if not 1 <= width <= 40:
        raise click.BadParameter(f"expected 1in to 40in, such as 3.25in or 8.5cm, got {text!r}")
    return width


@click.command("report")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--figures",
    type=click.Choice(["pdf", "png"]),
    multiple=True,
    help="Also write every figure in this format, with fonts embedded; may be given twice.",
)
@click.option("--width", callback=_inches, help="Width of those figures, such as 3.25in or 8.5cm.")
@json_option
def command(folder: Path, figures: tuple[str, ...], width: float | None, wants_json: bool) -> None:
    """Write report.html for the study in FOLDER, and figures for a paper where asked."""
    from rich.console import Console

    from optiscope.records import StudyFolder
    from optiscope.report import summary_json, summary_table, write_report

    kept = StudyFolder(folder)
    page = write_report(kept, figures=figures, width=width)
    if wants_json:
        click.echo(as_json(summary_json(kept)))
        return
    Console().print(summary_table(kept))
    click.echo(f"report: {page}")
