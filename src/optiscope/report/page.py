"""The report of a study as one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from optiscope.report import page_tables
from optiscope.report.answers import answer
from optiscope.report.appearance import Look, figure_style
from optiscope.report.legend import Key
from optiscope.report.panels import FigureGroup, leading_sensitivities, panels_of_problem
from optiscope.report.svg import svg_text
from optiscope.stats.claims import Claim
from optiscope.stats.refusal import Refusal
from optiscope.stats.study_table import MISSING, StudyTables
from optiscope.stats.summary import costs, failures, results

__all__ = ["render_page"]

PANEL_WIDTH: Final = 4.2
"""Inches, at which text of 9 points is readable on a phone and small enough on a laptop."""


def render_page(
    tables: StudyTables, looks: Mapping[str, Look], claims: Sequence[Claim | Refusal]
) -> str:
    """The page as text.

    Args:
        tables: the study with its curves.
        looks: of the algorithms shown, in the order shown.
        claims: of every two algorithms.
    """
    found = [r for r in results(tables) if r.algorithm in looks]
    spent = [c for c in costs(tables) if c.algorithm in looks]
    shown = [c for c in claims if c.a in looks and c.b in looks]
    answers = {
        problem: answer(problem, [r for r in found if r.problem == problem], shown)
        for problem in tables.problems
    }
    order = list(looks)
    found.sort(key=lambda r: order.index(r.algorithm))
    spent.sort(key=lambda c: order.index(c.algorithm))
    sections = []
    swatches = _Swatches()
    with figure_style():
        for problem in tables.problems:
            mine = [r for r in found if r.problem == problem]
            cost = [c for c in spent if c.problem == problem]
            groups = panels_of_problem(tables, problem, mine, cost, looks)
            reference = str(tables.declaration["reference"])
            sections.append(
                {
                    "problem": problem,
                    "facts": _problem_facts(tables, problem),
                    "answer": answers[problem].text,
                    "results": page_tables.result_table(mine, answers[problem], looks),
                    "groups": [_draw(group) for group in groups],
                    "tables": {
                        "sensitivity": page_tables.sensitivity_table(
                            leading_sensitivities(tables, problem, looks)
                        ),
                        "time": page_tables.cost_table(cost, looks, reference),
                    },
                }
            )
    files = resources.files("optiscope.report") / "templates"
    return (
        _environment(swatches)
        .get_template("report.html.j2")
        .render(
            declaration=tables.declaration,
            facts=_facts(tables, looks),
            warnings=_warnings(tables),
            answers=answers.values(),
            overview=page_tables.overview_table(found, answers, looks),
            all_keys=[Key.of(look) for look in looks.values()],
            sections=sections,
            comparisons=page_tables.claim_table(shown, looks),
            appendix=_appendix(tables, looks, found),
            swatches=swatches.names,
            style=Markup((files / "report.css").read_text(encoding="utf-8")),
            script=Markup((files / "report.js").read_text(encoding="utf-8")),
        )
    )


class _Swatches:
    """Names of the legend swatches used in a page, each drawn once."""

    def __init__(self) -> None:
        self.names: dict[Key, str] = {}

    def __call__(self, key: Key) -> str:
        return self.names.setdefault(key, f"swatch-{len(self.names)}")


def _environment(swatches: _Swatches) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("optiscope.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["swatch_id"] = swatches
    return environment


def _draw(group: FigureGroup) -> dict[str, Any]:
    drawn = []
    for panel in group.panels:
        figure = Figure(figsize=(PANEL_WIDTH, PANEL_WIDTH * panel.height), layout="constrained")
        panel.draw(figure.subplots())
        text = svg_text(figure, panel.name, panel.description)
        drawn.append({"svg": Markup(text), "algorithm": panel.algorithm})
    return {
        "name": group.name,
        "kind": group.kind,
        "heading": group.heading,
        "note": group.note,
        "legend": group.keys,
        "panels": drawn,
    }


def _facts(tables: StudyTables, looks: Mapping[str, Look]) -> str:
    declaration = tables.declaration
    seeds, tuning = declaration["seeds"], declaration["tuning"]
    return (
        f"{_count(len(looks), 'algorithm')} on {_count(len(tables.problems), 'problem')}; "
        f"hyperparameters chosen by {_metric_words(tuning['select'])} "
        f"({_count(len(tuning['seeds']), 'tuning seed')}), results on the test split with "
        f"{_count(len(seeds), 'fresh seed')}; {len(tables.runs)} runs planned; reference "
        f"{declaration['reference']}."
    )


def _problem_facts(tables: StudyTables, problem: str) -> str:
    declaration = tables.declaration
    return (
        f"Final test {tables.metric(problem)} after "
        f"{_count(int(declaration['epochs'][problem]), 'epoch')}, "
        f"batch size {declaration['batch_sizes'][problem]}, "
        f"{_count(len(declaration['seeds']), 'seed')}."
    )


def _warnings(tables: StudyTables) -> list[str]:
    lines = []
    statuses = tables.runs["status"]
    missing = int((statuses == MISSING).sum())
    if missing:
        lines.append(
            f"Not finished: {missing} of {len(tables.runs)} planned runs have no record yet. "
            "Start the study again to go on where it stopped."
        )
    if tables.damaged:
        lines.append(
            f"{_count(len(tables.damaged), 'record')} cannot be trusted and "
            f"{'is' if len(tables.damaged) == 1 else 'are'} left out: see Failures. Start the "
            "study again to repeat these runs."
        )
    failed = tables.runs[tables.runs["role"] == "reporting"]["status"].isin(["diverged", "crashed"])
    if failed.any():
        lines.append(
            f"{_count(int(failed.sum()), 'reporting run')} diverged or crashed: they count as "
            "outcomes and are drawn with a cross, never filled in."
        )
    if len(tables.environments) > 1:
        lines.append(
            f"Runs come from {len(tables.environments)} different environments: see "
            "Reproducibility before comparing times."
        )
    return lines


def _appendix(
    tables: StudyTables, looks: Mapping[str, Look], found: Sequence[Any]
) -> list[dict[str, Any]]:
    declaration = tables.declaration
    tuning = declaration["tuning"]
    names = page_tables.full_names(tables, list(looks))
    parts = [
        {
            "id": "tuning",
            "heading": "What was tuned how",
            "lines": [
                f"Tuning seeds {_list(tuning['seeds'])}, reporting seeds "
                f"{_list(declaration['seeds'])}; selection by {_metric_words(tuning['select'])}.",
            ],
            "blocks": [
                {"table": page_tables.tuning_table(tables, looks)},
                {"table": page_tables.chosen_table(found, tables.problems, looks)},
                {"summary": "What was compared, in full", "text": "\n".join(names)},
            ],
        },
        _failures(tables, looks),
        _reproducibility(tables),
    ]
    return parts


def _failures(tables: StudyTables, looks: Mapping[str, Look]) -> dict[str, Any]:
    bad = failures(tables)
    bad = bad[bad["algorithm"].isin(list(looks))]
    shown = tables.runs[tables.runs["algorithm"].isin(list(looks))]
    part: dict[str, Any] = {"id": "failures", "heading": "Failures", "lines": [], "blocks": []}
    if bad.empty:
        part["lines"].append("Every run that was recorded reached its end.")
    else:
        part["lines"].append(
            f"{len(bad)} of {len(shown)} planned runs did not reach their end. Failed trials of the "
            "tuning are charged to its budget."
        )
        part["blocks"].append({"table": page_tables.failure_counts(bad, shown, looks)})
        cut = page_tables.LISTED_FAILURES
        words = "every one" if len(bad) <= cut else f"the first {cut} of {len(bad)}"
        part["blocks"].append(
            {
                "summary": f"Step and reason, {words}",
                "table": page_tables.failure_list(bad, looks),
            }
        )
    if tables.damaged:
        text = "\n".join(f"{record.path.name}: {record.reason}" for record in tables.damaged)
        part["blocks"].append({"summary": "Damaged records", "text": text, "open": True})
    return part


def _reproducibility(tables: StudyTables) -> dict[str, Any]:
    declaration = dict(tables.declaration)
    source = declaration.pop("source", None)
    blocks: list[dict[str, Any]] = [{"table": page_tables.environment_table(tables.environments)}]
    if source:
        blocks.append({"summary": "The study file", "text": source})
    resolved = json.dumps(declaration, indent=1, ensure_ascii=False)
    blocks.append({"summary": "The study, resolved", "text": resolved})
    started = tables.runs["started"].dropna()
    lines = [f"optiscope {declaration['version']}."]
    if len(started):
        lines.append(f"Runs started between {min(started)} and {max(started)}.")
    return {
        "id": "reproducibility",
        "heading": "Reproducibility",
        "lines": lines,
        "blocks": blocks,
    }


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _list(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)


def _metric_words(select: str) -> str:
    split, _, metric = str(select).partition("_")
    return f"{'validation' if split == 'valid' else split} {metric}"
