"""The page of an experiment: what was published, what we found, whether they agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import metadata, resources
from typing import TYPE_CHECKING

from markupsafe import Markup

from optiscope.report.figure_style import figure_style
from optiscope.report.page.page import page_environment, page_figure
from optiscope.report.svg import svg_text
from optiscope.report.tables.data_table import Cell, DataTable, Row
from optiscope.reproduction.agreement import LEVEL, Compared
from optiscope.reproduction.experiments import Experiment, Scale
from optiscope.reproduction.published_figures import Published
from optiscope.reproduction.sections import Section

if TYPE_CHECKING:
    from optiscope.reproduction.talk import TalkExperiment

__all__ = ["compared_table", "render_page"]


def render_page(
    experiment: Experiment | TalkExperiment,
    scale: Scale,
    sections: Sequence[Section],
    not_run: str = "",
) -> str:
    """The page as text; it loads nothing from the network.

    Args:
        experiment: its title, what was published, and where.
        scale: at which it was repeated.
        sections: what it says.
        not_run: what this scale leaves out, in words.
    """
    with figure_style():
        drawings = [
            [
                (
                    Markup(svg_text(page_figure(panel), f"s{i}p{k}", panel.description)),
                    panel.keys,
                )
                for k, panel in enumerate(section.panels)
            ]
            for i, section in enumerate(sections)
        ]
    style = resources.files("optiscope.report.page") / "templates" / "report.css"
    environment = page_environment("optiscope.reproduction")
    return environment.get_template("reproduction.html.j2").render(
        experiment=experiment,
        scale=scale,
        not_run=not_run,
        sections=list(zip(sections, drawings, strict=True)),
        compared_table=compared_table,
        verdicts=[v for section in sections for v in section.conclusions],
        level=LEVEL,
        style=Markup(style.read_text(encoding="utf-8")),
        version=metadata.version("optiscope"),
    )


def compared_table(compared: Sequence[Compared]) -> DataTable:
    """One row per figure."""
    rows = []
    for figure in compared:
        verdict = figure.verdict
        note = figure.note if verdict == "differ" else ""
        rows.append(
            Row(
                [
                    Cell(figure.what),
                    Cell(_published(figure.published, figure.unit)),
                    Cell(_ours(figure)),
                    Cell(verdict, "bad" if verdict == "differ" else ""),
                    Cell(note, "words" if note else ""),
                ]
            )
        )
    return DataTable(["figure", "#published", "#here", "verdict", "why"], rows)


def _published(published: Published | None, unit: str) -> str:
    if published is None:
        return ""
    return _value(published.mean, published.deviation, str(published.runs), unit)


def _ours(figure: Compared) -> str:
    if not figure.ours:
        return ""
    finished, runs = len(figure.finished), len(figure.ours)
    count = str(runs) if finished == runs else f"{finished} of {runs}, the others failed"
    return _value(figure.mean, figure.deviation, count, figure.unit)


def _value(mean: float, deviation: float, runs: str, unit: str) -> str:
    if math.isnan(mean):
        return "failed"
    spread = "" if math.isnan(deviation) else f" ± {deviation:.2f}"
    return f"{mean:.2f}{spread} {unit} ({runs})"
