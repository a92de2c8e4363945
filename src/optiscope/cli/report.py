"""``optiscope report``: the page and figures of a study, made again from its records."""

from __future__ import annotations

from pathlib import Path

import click

from optiscope.cli.options import as_json, json_option
from optiscope.cli.terminal import terminal

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


def _pairs(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        label, equals, value = text.rpartition("=")
        if not (equals and label and value):
            raise click.BadParameter(f"expected LABEL=VALUE, got {text!r}")
        found[label] = value
    return found


@click.command("report")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--figures",
    type=click.Choice(["pdf", "png"]),
    multiple=True,
    help="Also write every figure in this format, with fonts embedded; may be given twice.",
)
@click.option("--width", callback=_inches, help="Width of those figures, such as 3.25in or 8.5cm.")
@click.option(
    "--show",
    "algorithms",
    multiple=True,
    metavar="LABEL",
    help="Show this algorithm; given several times, in this order [default: all, as declared].",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="LABEL=NAME",
    callback=_pairs,
    help="Call an algorithm NAME.",
)
@click.option(
    "--color",
    "--colour",
    "colors",
    multiple=True,
    metavar="LABEL=#rrggbb",
    callback=_pairs,
    help="Draw an algorithm in this color.",
)
@json_option
def command(
    folder: Path,
    figures: tuple[str, ...],
    width: float | None,
    algorithms: tuple[str, ...],
    labels: dict[str, str],
    colors: dict[str, str],
    wants_json: bool,
) -> None:
    """Write report.html for the study in FOLDER, and figures for a paper where asked.

    Options take the labels that the study declares. Hiding algorithms does not relax the correction
    for multiple comparisons.
    """
    from optiscope.records import StudyFolder
    from optiscope.report import summary_json, summary_table, write_report

    if width is not None and not figures:
        raise click.UsageError("--width is the width of --figures: say which, such as pdf")
    kept = StudyFolder(folder)
    try:
        page = write_report(
            kept,
            figures=figures,
            width=width,
            algorithms=algorithms or None,
            order=algorithms or None,
            labels=labels,
            colors=colors,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if wants_json:
        click.echo(as_json(summary_json(kept)))
        return
    terminal().print(summary_table(kept, algorithms=algorithms or None))
    click.echo(f"report: {page}")
