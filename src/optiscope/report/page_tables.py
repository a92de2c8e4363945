"""The tables of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from optiscope.report.answers import Answer, effect_text
from optiscope.report.appearance import Look
from optiscope.report.data_table import Cell, DataTable, Row
from optiscope.report.legend import Key
from optiscope.report.number_text import (
    metric_text,
    plain_text,
    point_text,
    seconds_text,
    significant,
    space_text,
    spread_text,
)
from optiscope.stats.claims import Claim
from optiscope.stats.comparison import SIGN_TEST, Verdict
from optiscope.stats.naming import algorithm_name
from optiscope.stats.profiles import TargetCost
from optiscope.stats.published import PublishedSetting
from optiscope.stats.refusal import Refusal
from optiscope.stats.sensitivity import Edge, Sensitivity
from optiscope.stats.study_table import StudyTables
from optiscope.stats.summary import Cost, Result
from optiscope.stats.tuning_curve import TuningSummary

__all__ = [
    "claim_table",
    "cost_table",
    "environment_table",
    "failure_counts",
    "failure_list",
    "overview_table",
    "published_table",
    "result_table",
    "sensitivity_table",
    "target_table",
    "tuning_table",
]

LISTED_FAILURES: Final = 200
"""Longer lists of failures are cut here; the counts above them are not."""

SHOWN_PHASE: Final = 0.01
"""Phases that take less of a step everywhere get no column."""

_NOT_WORSE: Final = ("undecided", "equivalent", "better")


def overview_table(
    results: Sequence[Result], answers: Mapping[str, Answer], looks: Mapping[str, Look]
) -> DataTable:
    """Mean of every algorithm on every problem; bold where certainly best, ≈ where not shown worse
    than the best."""
    rows = []
    for label, look in looks.items():
        cells = [Cell(label)]
        for problem, answer in answers.items():
            result = next(r for r in results if (r.problem, r.algorithm) == (problem, label))
            cells.append(_overview_cell(result, answer))
        rows.append(Row(cells, Key.of(look), look.number))
    metrics = {r.problem: r.metric for r in results}
    columns = ["algorithm", *(f"#{p}, test {metrics[p]}" for p in answers)]
    return DataTable(columns, rows)


def result_table(results: Sequence[Result], answer: Answer, looks: Mapping[str, Look]) -> DataTable:
    """Final values of one problem, with the leader's lead over each algorithm."""
    rows = []
    for r in results:
        low, high = r.range
        metric = r.metric
        standing = answer.standings.get(r.algorithm)
        verdict = "" if standing is None else _VERDICTS[standing.word]
        lead = "" if standing is None or standing.word == "refused" else standing.text
        failed = ", ".join(f"{count} {status}" for status, count in r.failed.items())
        leads = r.algorithm == answer.leader
        hint = standing.text if standing is not None and standing.word == "refused" else ""
        rows.append(
            Row(
                [
                    Cell(r.algorithm + (" (published)" if r.imported else "")),
                    Cell(metric_text(r.mean, metric), "best" if leads and answer.certain else ""),
                    Cell(spread_text(r.deviation, metric)),
                    Cell(_between(*r.interval, metric)),
                    Cell(_between(low, high, metric)),
                    Cell(f"{len(r.values)} of {r.planned}"),
                    Cell(failed or "–", "bad" if failed else ""),
                    Cell(lead or "–"),
                    Cell(verdict, hint=hint),
                ],
                Key.of(looks[r.algorithm]),
                looks[r.algorithm].number,
            )
        )
    lead = f"#lead of {answer.leader}" if answer.leader else "#lead"
    columns = (
        "algorithm",
        "#mean",
        "#sd",
        "#95 % interval of the mean",
        "#lowest to highest",
        "#seeds",
        "failed",
        lead,
        "beside the leader",
    )
    return DataTable(columns, rows)


def published_table(settings: Sequence[PublishedSetting], metric: str) -> DataTable:
    """Published settings of a problem with their final values at their own horizons."""
    rows = [
        Row(
            [
                Cell(s.optimizer),
                Cell(point_text(s.hyperparameters)),
                Cell(s.source),
                Cell(str(s.epochs)),
                Cell(metric_text(s.final(f"test_{metric}"), metric)),
            ]
        )
        for s in settings
    ]
    columns = ("published", "hyperparameters", "source", "#epochs", f"#final test {metric}")
    return DataTable(columns, rows)


def cost_table(costs: Sequence[Cost], looks: Mapping[str, Look], reference: str) -> DataTable:
    """Time and counted work per training step, by phase."""
    total = max((sum(c.phases.values()) for c in costs), default=0.0)
    phases = [
        p for p in _PHASE_WORDS if any(c.phases.get(p, 0.0) > SHOWN_PHASE * total for c in costs)
    ]
    rows = []
    for c in costs:
        ratio = (
            f"× {significant(float(np.median(c.ratios)))} "
            f"({significant(min(c.ratios))} to {significant(max(c.ratios))})"
            if c.ratios
            else "–"
        )
        memory = "–" if c.peak_memory_bytes is None else f"{c.peak_memory_bytes / 2**20:.0f} MiB"
        rows.append(
            Row(
                [
                    Cell(c.algorithm),
                    Cell(seconds_text(float(np.median(c.wall)))),
                    Cell(ratio),
                    Cell(seconds_text(float(np.median(c.cpu)))),
                    *(Cell(seconds_text(c.phases.get(phase, math.nan))) for phase in phases),
                    Cell(significant(c.gradient_evaluations)),
                    Cell(significant(c.hessian_products)),
                    Cell(memory),
                    Cell(seconds_text(c.total_wall)),
                ],
                Key.of(looks[c.algorithm]),
                looks[c.algorithm].number,
            )
        )
    columns = (
        "algorithm",
        "#wall per step",
        f"#relative to {reference}",
        "#CPU per step",
        *(f"#{_PHASE_WORDS[p]}" for p in phases),
        "#gradients",
        "#Hessian products",
        "#peak memory",
        "#training of a run",
    )
    caption = (
        "All but the last two columns are per training step: median wall and CPU time of training, "
        "mean wall time of each phase (evaluation is not training), and counted work."
    )
    return DataTable(columns, rows, caption)


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
        best = (max if s.metric.endswith("accuracy") else min)(finite) if finite else math.nan
        flags = [
            f"{e.name} at the {e.side} edge: try {space_text(e.suggestion)}"
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
                    Cell(f"{summary.failed} of {summary.budget}"),
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


def target_table(
    costs: Sequence[TargetCost], problems: Sequence[str], looks: Mapping[str, Look]
) -> DataTable:
    """Epochs and training time to the reference's target, on every problem that has one."""
    by_place = {(c.problem, c.algorithm): c for c in costs}
    shown = [p for p in problems if any(c.problem == p for c in costs)]
    rows = []
    for label, look in looks.items():
        cells = [Cell(label)]
        for problem in shown:
            cost = by_place.get((problem, label))
            cells.append(Cell("–") if cost is None else _target_cell(cost))
        rows.append(Row(cells, Key.of(look), look.number))
    return DataTable(("epochs to the target", *(f"#{p}" for p in shown)), rows if shown else ())


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
        ]
        rows.append(
            Row(
                [
                    Cell(label),
                    Cell(a.optimizer),
                    Cell(space or "untuned"),
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


def claim_table(claims: Sequence[Claim | Refusal]) -> DataTable:
    """Every comparison of two algorithms, decided or refused; the full sentence as a hint."""
    rows = []
    for found in claims:
        cells = [Cell(f"{found.a} against {found.b}"), Cell(found.problem)]
        if isinstance(found, Refusal):
            cells += [Cell("refused", "bad"), *(Cell("–") for _ in range(5))]
            cells.append(Cell(found.reason, "words"))
        else:
            c = found.comparison
            decided = c.verdict is not Verdict.UNDECIDED
            needed = None if decided else c.seeds_to_decide
            remark = "" if decided or needed is not None else "more than 1000 seeds to decide"
            cells += [
                Cell(str(c.verdict), "best" if decided else "", found.sentence),
                Cell(effect_text(c, found.metric)),
                Cell(significant(c.p_value, 2)),
                Cell(significant(c.level, 2)),
                Cell("sign test" if c.test == SIGN_TEST else "paired t"),
                Cell("–" if needed is None else str(needed)),
                Cell(remark),
            ]
        rows.append(Row(cells))
    columns = (
        "comparison",
        "problem",
        "the first is",
        "#difference [interval]",
        "#p",
        "#level",
        "test",
        "#seeds to decide",
        "remark",
    )
    corrections = dict.fromkeys(f.correction for f in claims if isinstance(f, Claim))
    caption = (
        f"Paired by seed; corrected by {'; '.join(corrections)}. The level is that of each "
        "comparison after correction, and the interval is stated at it."
    )
    return DataTable(columns, rows, caption if corrections else "")


def failure_counts(bad: pd.DataFrame, runs: pd.DataFrame, looks: Mapping[str, Look]) -> DataTable:
    """Failed runs per algorithm, role and status, beside all planned ones."""
    statuses = list(dict.fromkeys(bad["status"]))
    rows = []
    for label, look in looks.items():
        for role in ("tuning", "reporting"):
            planned = runs[(runs["algorithm"] == label) & (runs["role"] == role)]
            mine = bad[(bad["algorithm"] == label) & (bad["role"] == role)]["status"]
            if not len(mine):
                continue
            counts = mine.value_counts()
            cells = [Cell(label), Cell(role), Cell(str(len(planned)))]
            cells += [Cell(str(counts.get(status, 0))) for status in statuses]
            rows.append(Row(cells, Key.of(look), look.number))
    return DataTable(("algorithm", "role", "#runs", *(f"#{s}" for s in statuses)), rows)


def failure_list(bad: pd.DataFrame, looks: Mapping[str, Look]) -> DataTable:
    """The failed runs, each with its step and reason."""
    rows = []
    for run in bad.head(LISTED_FAILURES).to_dict("records"):
        look = looks.get(run["algorithm"])
        if look is None:
            continue
        steps = run.get("steps")
        cells = [
            Cell(str(run["algorithm"])),
            Cell(str(run["problem"])),
            Cell(str(run["role"])),
            Cell(str(run["seed"])),
            Cell(str(run["status"])),
            Cell("–" if steps is None or pd.isna(steps) else str(int(steps))),
            Cell(str(run["reason"]), "words"),
            Cell(point_text(run["hyperparameters"])),
        ]
        rows.append(Row(cells, Key.of(look), look.number))
    columns = (
        "algorithm",
        "problem",
        "role",
        "#seed",
        "status",
        "#steps",
        "reason",
        "hyperparameters",
    )
    return DataTable(columns, rows)


def environment_table(environments: Sequence[tuple[Mapping[str, Any], int]]) -> DataTable:
    """Versions and hardware, one column per distinct environment."""
    shown = environments[:4]
    names = list(dict.fromkeys(name for values, _ in shown for name in values))
    rows = []
    for name in names:
        values = [plain_text(e.get(name)) for e, _ in shown]
        style = "bad" if len(set(values)) > 1 else ""
        rows.append(Row([Cell(name), *(Cell(value, style) for value in values)]))
    return DataTable(("", *(f"{count} runs" for _, count in shown)), rows)


def full_names(tables: StudyTables, labels: Sequence[str]) -> list[str]:
    """A(Φ, budget) of each algorithm in words."""
    declared = {a["label"]: a for a in tables.declaration["algorithms"]}
    return [algorithm_name(declared[label]) for label in labels]


_PHASE_WORDS: Final = {
    "data": "data",
    "forward_backward": "forward and backward",
    "optimizer": "optimizer",
    "instruments": "instruments",
    "evaluation": "evaluation",
}

_VERDICTS: Final = {
    "leader": "leader",
    "worse": "certainly worse",
    "better": "certainly better",
    "equivalent": "equal within the margin",
    "undecided": "undecided",
    "refused": "not comparable",
}


def _overview_cell(result: Result, answer: Answer) -> Cell:
    text = metric_text(result.mean, result.metric)
    if result.failed:
        words = ", ".join(f"{count} {status}" for status, count in result.failed.items())
        return Cell(f"{text} ({words} of {result.planned})", "bad")
    if result.algorithm == answer.leader:
        if answer.certain:
            return Cell(text, "best", "certainly better than all others")
        return Cell(f"≈ {text}", "", "best mean, not certainly better than all others")
    standing = answer.standings.get(result.algorithm)
    if standing is not None and standing.word in _NOT_WORSE:
        return Cell(f"≈ {text}", "", "not shown to be worse than the best")
    return Cell(text)


def _between(low: float, high: float, metric: str) -> str:
    if not math.isfinite(low):
        return "–"
    return f"{metric_text(low, metric).removesuffix(' %')} to {metric_text(high, metric)}"


def _rule_text(rule: Any) -> str:
    if not isinstance(rule, Mapping):
        return str(rule)
    rest = {name: value for name, value in rule.items() if name != "name"}
    words = [str(rule["name"])] if "name" in rule else []
    return ", ".join(words + ([point_text(rest)] if rest else []))


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


def _fresh(summary: TuningSummary) -> str:
    bias = summary.selection
    if bias is None:
        return "–"
    text = metric_text(bias.fresh, summary.metric)
    if bias.bias is None:
        return text
    word = "worse" if bias.bias > 0 else "better"
    return f"{text} ({significant(abs(bias.bias), 2)} sd {word})"


def _target_cell(cost: TargetCost) -> Cell:
    seeds = f"{cost.reached} of {len(cost.epochs)} seeds"
    if not math.isfinite(cost.median_epochs):
        return Cell(f"missed ({seeds})", "bad")
    text = f"{significant(cost.median_epochs)} ({seconds_text(cost.median_seconds)}"
    return Cell(f"{text})" if cost.reached == len(cost.epochs) else f"{text}; {seeds})")
