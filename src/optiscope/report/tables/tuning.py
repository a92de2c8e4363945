"""What was tuned how, what it chose, and how sensitive the result is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optiscope.records import higher_is_better
from optiscope.report.appearance import Look
from optiscope.report.legend import Key
from optiscope.report.number_text import metric_text, point_text, significant, space_text
from optiscope.report.tables.data_table import Cell, DataTable, Row
from optiscope.stats.naming import algorithm_name, gradient_words, untuned_words
from optiscope.stats.sensitivity import Edge, Sensitivity
from optiscope.stats.study_table import StudyTables
from optiscope.stats.summary import Result
from optiscope.stats.tuning_curve import TuningSummary

__all__ = ["chosen_table", "full_names", "sensitivity_table", "tuning_table"]


def sensitivity_table(
    found: Sequence[tuple[Look, Sensitivity]],
    tuned: Mapping[str, TuningSummary],
    edges: Mapping[str, Sequence[Edge]],
) -> DataTable:
    """Chosen value, what the winner is worth on fresh seeds, good range, and edges of the space."""
    rows = []
    for look, s in found:
        summary = tuned[look.label]
        finite = [r for r in s.results if math.isfinite(r)]
        best = (max if higher_is_better(s.metric) else min)(finite) if finite else math.nan
        flags = [
            f"{'' if e.name == s.name else f'{e.name} '}{e.side}: try {space_text(e.suggestion)}"
            for e in edges.get(look.label, ())
        ]
        rows.append(
            Row(
                [
                    Cell(look.label),
                    Cell(s.name),
                    Cell(space_text(s.space)),
                    Cell("–" if s.chosen is None else significant(s.chosen)),
                    Cell(_good_range(s)),
                    Cell(metric_text(best, s.metric)),
                    Cell(_fresh(summary)),
                    Cell(_lost(summary)),
                    Cell("; ".join(flags) or "–", "bad words" if flags else ""),
                ],
                Key.of(look),
                look.number,
            )
        )
    columns = (
        "algorithm",
        "hyperparameter",
        "search space",
        "#chosen",
        "#good range",
        "#best in tuning",
        "#the same on fresh seeds",
        "#failed trials",
        "edge of the space",
    )
    return DataTable(columns, rows)


def tuning_table(tables: StudyTables, looks: Mapping[str, Look]) -> DataTable:
    """What was tuned how, one row per algorithm."""
    rows = []
    for label, look in looks.items():
        a = tables.algorithm(label)
        space = ", ".join(f"{name} {space_text(d)}" for name, d in a.space.items())
        extras = [
            f"{word} {_rule_text(rule)}"
            for word, rule in (
                ("schedule", a.schedule),
                ("clipping", a.clip),
                ("early stopping", a.early_stopping),
                ("pruner", a.pruner),
            )
            if rule
        ] + gradient_words(vars(a))
        rows.append(
            Row(
                [
                    Cell(label),
                    Cell(a.optimizer),
                    Cell(space or untuned_words(vars(a))),
                    Cell(point_text(a.fixed)),
                    Cell(a.sampler if a.space else "–"),
                    Cell(str(a.budget) if a.space else "0"),
                    Cell("; ".join(extras) or "–", "words"),
                ],
                Key.of(look),
                look.number,
            )
        )
    columns = ("algorithm", "optimizer", "tuned", "fixed", "sampler", "#trials", "also part of it")
    return DataTable(columns, rows)


def chosen_table(
    results: Sequence[Result], problems: Sequence[str], looks: Mapping[str, Look]
) -> DataTable:
    """What tuning chose, per problem."""
    rows = []
    for label, look in looks.items():
        mine = {r.problem: r for r in results if r.algorithm == label}
        cells = [Cell(label), *(Cell(point_text(mine[p].hyperparameters)) for p in problems)]
        rows.append(Row(cells, Key.of(look), look.number))
    return DataTable(("chosen", *problems), rows)


def full_names(tables: StudyTables, labels: Sequence[str]) -> list[str]:
    """A(Φ, budget) of each algorithm in words."""
    declared = {a["label"]: a for a in tables.declaration["algorithms"]}
    return [algorithm_name(declared[label], tried=_fewest_tried(tables, label)) for label in labels]


def _fewest_tried(tables: StudyTables, label: str) -> int:
    """Different settings that a tuning tried, on the problem where these were fewest."""
    return min(tables.evidence.settings_tried(problem, label) for problem in tables.problems)


def _good_range(s: Sensitivity) -> str:
    good = s.good
    if good is None:
        return "–"
    if good.trials == 1:
        return f"{significant(good.low)} alone"
    text = f"{significant(good.low)} to {significant(good.high)}"
    if math.isfinite(good.factor):
        text += f" (× {significant(good.factor)}, {good.trials} trials)"
    return text


def _lost(summary: TuningSummary) -> str:
    """Trials without a value of their end."""
    text = f"{summary.failed} of {summary.budget}"
    if summary.proposals > summary.budget:
        text += f" different of {summary.proposals} proposals"
    return f"{text}, {summary.pruned} pruned" if summary.pruned else text


def _fresh(summary: TuningSummary) -> str:
    bias = summary.selection
    if bias is None:
        return "–"
    text = metric_text(bias.fresh, summary.metric)
    if bias.bias is None:
        return text
    word = "worse" if bias.bias > 0 else "better"
    return f"{text} ({significant(abs(bias.bias), 2)} sd {word})"


def _rule_text(rule: Any) -> str:
    if not isinstance(rule, Mapping):
        return str(rule)
    rest = {name: value for name, value in rule.items() if name != "name"}
    words = [str(rule["name"])] if "name" in rule else []
    return ", ".join(words + ([point_text(rest)] if rest else []))
