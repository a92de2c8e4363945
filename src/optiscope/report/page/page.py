"""The report of a study as one self-contained page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from optiscope.report.content import ProblemContent, ReportContent
from optiscope.report.figure_style import figure_style
from optiscope.report.figures.groups import differences_of, groups_of_problem, groups_of_study
from optiscope.report.figures.panel import FigureGroup, Panel
from optiscope.report.legend import Key
from optiscope.report.page.appendix import appendix
from optiscope.report.page.downloads import downloads
from optiscope.report.page.words import problem_facts, study_facts, warnings
from optiscope.report.svg import share_styles, svg_text
from optiscope.report.tables import results as result_tables
from optiscope.report.tables import runs as run_tables
from optiscope.report.tables import tuning as tuning_tables
from optiscope.stats.published import published_settings

__all__ = ["page_environment", "page_figure", "render_page"]

PANEL_WIDTH: Final = 4.2
"""Inches, at which text of 9 points is readable on a phone and small enough on a laptop."""

MANY: Final = 4
"""From more algorithms on, bands of learning curves show only for the one pointed at."""

TOP: Final = 0.27
"""Inches above the axes, for the title."""

BOTTOM: Final = 0.44
"""Inches below the axes, for tick labels and the axis label."""


def render_page(content: ReportContent) -> str:
    """The page as text."""
    tables, looks = content.tables, content.looks
    swatches = _Swatches()
    with figure_style():
        sections = [_section(content, found, f"f{n}") for n, found in enumerate(content.problems)]
        across = _rows([_draw(group, f"a{k}") for k, group in enumerate(groups_of_study(content))])
        answers = [_answer(content, found, f"d{n}") for n, found in enumerate(content.problems)]
    drawn = [panel for a in answers for panel in a["forest"]]
    css = _share_styles(drawn, [across, *(section["rows"] for section in sections)])
    files = resources.files("optiscope.report.page") / "templates"
    environment = page_environment()
    environment.globals["swatch_id"] = swatches
    return environment.get_template("report.html.j2").render(
        declaration=tables.declaration,
        facts=study_facts(tables, looks),
        warnings=warnings(content),
        answers=answers,
        overview=result_tables.overview_table(
            content.results,
            {p.problem: p.answer for p in content.problems},
            {p.problem: p.letters for p in content.problems},
            looks,
        ),
        lettered=any(p.letters for p in content.problems),
        downloads=downloads(content),
        many=len(looks) > MANY,
        all_keys=[Key.of(look) for look in looks.values()],
        across=across,
        targets=result_tables.target_table(content.targets, tables.problems, looks),
        sections=sections,
        comparisons=result_tables.claim_table(content.claims),
        appendix=appendix(content),
        swatches=swatches.names,
        style=Markup((files / "report.css").read_text(encoding="utf-8") + css),
        script=Markup((files / "report.js").read_text(encoding="utf-8")),
    )


def _section(content: ReportContent, found: ProblemContent, name: str) -> dict[str, Any]:
    """Everything the template needs for one problem; ``name`` is unique in the page."""
    tables, looks = content.tables, content.looks
    reference = str(tables.declaration["reference"])
    drawn = [
        _draw(group, f"{name}{chr(97 + k)}")
        for k, group in enumerate(groups_of_problem(content, found))
    ]
    return {
        "problem": found.problem,
        "facts": problem_facts(tables, found.problem),
        "answer": found.answer.text,
        "results": result_tables.result_table(found.results, found.answer, looks),
        "rows": _rows(drawn),
        "tables": {
            "curves": result_tables.published_table(
                published_settings(tables.published, found.problem),
                tables.metric(found.problem),
            ),
            "sensitivity": tuning_tables.sensitivity_table(
                found.sensitivities, found.tuned, found.edges
            ),
            "time": run_tables.cost_table(found.costs, looks, reference),
        },
    }


def _rows(groups: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Groups of one panel stand side by side, others by themselves."""
    rows: list[list[dict[str, Any]]] = []
    for group in groups:
        single = len(group["panels"]) == 1 and group["panels"][0]["algorithm"] is None
        if single and rows and rows[-1][0]["single"]:
            rows[-1].append(group)
        else:
            rows.append([group])
        group["single"] = single
    return rows


class _Swatches:
    """Names of the legend swatches used in a page, each drawn once."""

    def __init__(self) -> None:
        self.names: dict[Key, str] = {}

    def __call__(self, key: Key) -> str:
        return self.names.setdefault(key, f"swatch-{len(self.names)}")


def _coded(text: str) -> Markup:
    """Escaped text in which what stands between backticks is code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def page_environment(*packages: str) -> jinja2.Environment:
    """Environment of pages: templates of ``packages``, then those of the report."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader(name, "templates")
                for name in (*packages, "optiscope.report.page")
            ]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["coded"] = _coded
    return environment


def _draw(group: FigureGroup, first: str) -> dict[str, Any]:
    drawn = [_drawn(panel, f"{first}{n}") for n, panel in enumerate(group.panels)]
    return {
        "name": f"{first}-{group.kind}",
        "kind": group.kind,
        "heading": group.heading,
        "note": group.note,
        "legend": [key for key in group.keys if key.number is None],
        "panels": drawn,
    }


def _answer(content: ReportContent, found: ProblemContent, name: str) -> dict[str, Any]:
    """The answer for one problem: a sentence, and the differences to the baseline."""
    panel = differences_of(content, found.problem)
    forest = [] if panel is None else [_drawn(panel, name)]
    return {"problem": found.problem, "text": found.answer.text, "forest": forest}


def _share_styles(
    drawn: Sequence[dict[str, Any]], parts: Sequence[Sequence[Sequence[dict[str, Any]]]]
) -> str:
    """Put recurring styles of all drawings into classes, and return the CSS of these."""
    groups = [group for rows in parts for row in rows for group in row]
    panels = [*drawn, *(panel for group in groups for panel in group["panels"])]
    drawings, css = share_styles([panel["svg"] for panel in panels])
    for panel, drawing in zip(panels, drawings, strict=True):
        panel["svg"] = Markup(drawing)
    return css


def _drawn(panel: Panel, name: str) -> dict[str, Any]:
    svg = svg_text(page_figure(panel), name, panel.description)
    return {"svg": svg, "algorithm": panel.algorithm, "file": panel.name}


def page_figure(panel: Panel) -> Figure:
    """The panel for the page; margins are fixed, so that panels side by side line up."""
    width, height = PANEL_WIDTH, PANEL_WIDTH * panel.height
    inner = (width - panel.left - panel.right, height - BOTTOM - TOP)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (panel.left / width, BOTTOM / height, inner[0] / width, inner[1] / height)
    )
    axes.yaxis.set_label_coords((0.17 - panel.left) / inner[0], 0.5)
    panel.draw(axes)
    place = axes.xaxis.label.get_position()[0]
    axes.xaxis.set_label_coords(place, -0.27 / inner[1])
    return figure
