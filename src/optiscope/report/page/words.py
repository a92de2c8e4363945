"""Sentences of the page that say what a study is and what its reader must know first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from optiscope.report.appearance import Look
from optiscope.report.content import ReportContent
from optiscope.report.number_text import significant, space_text
from optiscope.stats.naming import counted
from optiscope.stats.sensitivity import Edge
from optiscope.stats.study_table import MISSING, StudyTables

__all__ = [
    "AT_THE_EDGE",
    "edge_words",
    "listed",
    "metric_words",
    "problem_facts",
    "study_facts",
    "warnings",
]

AT_THE_EDGE: Final = "Chosen at the edge of what was tried, so that a better value may lie beyond"

SHOWN_EDGES: Final = 4
"""Choices at the edge of their space that are named on the first screen."""


def edge_words(label: str, problem: str, edge: Edge) -> str:
    """One choice at the edge, with the space to try next."""
    space = space_text(edge.suggestion)
    return f"{label} on {problem}: {edge.name} {significant(edge.value)}, try {space}"


def study_facts(tables: StudyTables, looks: Mapping[str, Look]) -> str:
    """What was planned, in a sentence."""
    declaration = tables.declaration
    seeds, tuning = declaration["seeds"], declaration["tuning"]
    return (
        f"{counted(len(looks), 'algorithm')} on {counted(len(tables.problems), 'problem')}; "
        f"hyperparameters chosen by {metric_words(tuning['select'])} "
        f"({counted(len(tuning['seeds']), 'tuning seed')}), results on the test split with "
        f"{counted(len(seeds), 'fresh seed')}; {len(tables.runs)} runs planned; baseline "
        f"{declaration['reference']}."
    )


def problem_facts(tables: StudyTables, problem: str) -> str:
    """What was measured on a problem."""
    declaration = tables.declaration
    return (
        f"Final test {tables.metric(problem)} after "
        f"{counted(int(declaration['epochs'][problem]), 'epoch')}, "
        f"batch size {declaration['batch_sizes'][problem]}, "
        f"{counted(len(declaration['seeds']), 'seed')}."
    )


def warnings(content: ReportContent) -> list[str]:
    """What is missing, damaged, failed or mixed."""
    tables = content.tables
    lines = []
    statuses = tables.runs["status"]
    missing = int((statuses == MISSING).sum())
    if missing:
        lines.append(
            f"Not finished: {missing} of {len(tables.runs)} planned runs have no record yet. "
            "Start the study again to continue where it stopped."
        )
    if tables.damaged:
        lines.append(
            f"{counted(len(tables.damaged), 'record')} cannot be trusted and "
            f"{'is' if len(tables.damaged) == 1 else 'are'} left out: see Failures. Start the "
            "study again to repeat these runs."
        )
    reporting = statuses[tables.runs["role"] == "reporting"]
    failed = reporting.isin(["diverged", "crashed"])
    if failed.any():
        lines.append(
            f"{counted(int(failed.sum()), 'reporting run')} diverged or crashed: they count as "
            "outcomes and are drawn with a cross, never filled in."
        )
    late = int((reporting == "timed_out").sum())
    if late:
        lines.append(
            f"{counted(late, 'reporting run')} ran out of time (max_seconds) before the horizon: "
            f"{'it counts' if late == 1 else 'they count'} as failed."
        )
    broken = int((reporting == "interrupted").sum())
    if broken:
        lines.append(
            f"{counted(broken, 'reporting run')} {'was' if broken == 1 else 'were'} interrupted. "
            "Start the study again to repeat what is lost."
        )
    edges = [
        edge_words(label, p.problem, edge)
        for p in content.problems
        for label, found in p.edges.items()
        for edge in found
    ]
    if edges:
        more = len(edges) - SHOWN_EDGES
        lines.append(
            f"{AT_THE_EDGE}: "
            + "; ".join(edges[:SHOWN_EDGES])
            + (f"; and {more} more, see the tables under Sensitivity." if more > 0 else ".")
        )
    if len(tables.environments) > 1:
        lines.append(
            f"Runs come from {len(tables.environments)} different environments: see "
            "Reproducibility before comparing times."
        )
    return lines


def listed(values: Iterable[Any]) -> str:
    """Values with commas."""
    return ", ".join(str(value) for value in values)


def metric_words(select: str) -> str:
    """``valid_loss`` as ``validation loss``."""
    split, _, metric = str(select).partition("_")
    return f"{'validation' if split == 'valid' else split} {metric}"
