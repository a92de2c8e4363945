"""What the algorithms reached: overview, results, comparisons, targets, published settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from optiscope.records import higher_is_better
from optiscope.report.answers import Answer, Standing, effect_text
from optiscope.report.appearance import Look
from optiscope.report.legend import Key
from optiscope.report.number_text import (
    metric_text,
    point_text,
    seconds_text,
    significant,
    spread_text,
)
from optiscope.report.tables.data_table import Cell, DataTable, Row
from optiscope.stats.claims import Claim
from optiscope.stats.comparison import SIGN_TEST, T_TEST, Verdict
from optiscope.stats.profiles import TargetCost
from optiscope.stats.published import PublishedSetting
from optiscope.stats.refusal import Refusal
from optiscope.stats.summary import Result

__all__ = ["claim_table", "overview_table", "published_table", "result_table", "target_table"]

_VERDICTS: Final = {
    "leader": "leader",
    "worse": "significantly worse",
    "better": "significantly better",
    "equivalent": "equal within the margin",
    "undecided": "undecided",
    "refused": "not comparable",
}


def overview_table(
    results: Sequence[Result],
    answers: Mapping[str, Answer],
    letters: Mapping[str, Mapping[str, str]],
    looks: Mapping[str, Look],
) -> DataTable:
    """Mean and deviation of every algorithm on every problem, best mean rank first.

    Bold where significantly better than all others; algorithms that share a letter on a problem do
    not differ significantly.

    Args:
        results: of every problem.
        answers: by problem.
        letters: by problem and label.
        looks: algorithms shown.
    """
    place = _mean_places(results, list(answers))
    rows = []
    for label in sorted(looks, key=lambda x: (place.get(x, math.inf), list(looks).index(x))):
        cells = [Cell(label)]
        for problem, answer in answers.items():
            result = next(r for r in results if (r.problem, r.algorithm) == (problem, label))
            cells.append(_overview_cell(result, answer, letters[problem].get(label, "")))
        rows.append(Row(cells, Key.of(looks[label]), looks[label].number))
    metrics = {r.problem: r.metric for r in results}
    columns = ["algorithm", *(f"#{p}, test {metrics[p]}" for p in answers)]
    return DataTable(columns, rows)


def result_table(results: Sequence[Result], answer: Answer, looks: Mapping[str, Look]) -> DataTable:
    """Final values of one problem, with the leader's lead over each other algorithm."""
    rows = []
    for r in results:
        leads = r.algorithm == answer.leader
        failed = ", ".join(f"{count} {status}" for status, count in r.failed.items())
        cells = [
            Cell(r.algorithm + (" (published)" if r.imported else "")),
            Cell(metric_text(r.mean, r.metric), "best" if leads and answer.certain else ""),
            Cell(spread_text(r.deviation, r.metric)),
            Cell(_between(*r.interval, r.metric)),
            Cell(_between(*r.range, r.metric)),
            Cell(f"{len(r.values)} of {r.planned}"),
            Cell(failed or "–", "bad" if failed else ""),
        ]
        if len(results) > 1:
            cells += _standing_cells(answer.standings.get(r.algorithm))
        rows.append(Row(cells, Key.of(looks[r.algorithm]), looks[r.algorithm].number))
    columns = [
        "algorithm",
        "#mean",
        "#sd",
        "#95 % interval of the mean, if normal",
        "#lowest to highest",
        "#seeds",
        "failed",
    ]
    if len(results) > 1:
        columns += [f"#lead of {answer.leader}" if answer.leader else "#lead", "beside the leader"]
    return DataTable(columns, rows)


_TESTS = {SIGN_TEST: "sign test", T_TEST: "paired t"}
_REMARKS = {
    "too few seeds": "too few seeds to decide anything",
    "too close": "too close: even 1000 seeds would not decide",
}


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
            remarks = [_REMARKS.get(c.undecided_because or "", ""), found.few_samples or ""]
            remark = "; ".join(filter(None, remarks))
            cells += [
                Cell(str(c.verdict), "best" if decided else "", found.sentence),
                Cell(effect_text(c, found.metric)),
                Cell(significant(c.p_value, 2)),
                Cell(significant(c.level, 2)),
                Cell(_TESTS.get(c.test, "sign flip")),
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
        "comparison after correction, and the interval is stated at it. Verdicts hold over seeds, "
        "for this test set and this tuning."
    )
    if any(isinstance(f, Claim) and f.few_samples for f in claims):
        caption += (
            " Where the remark names test samples, the difference is less than a handful of "
            "them: other samples may well reverse it, whatever the number of seeds."
        )
    return DataTable(columns, rows, caption if corrections else "")


def target_table(
    costs: Sequence[TargetCost], problems: Sequence[str], looks: Mapping[str, Look]
) -> DataTable:
    """Epochs and training time to the reference's target, on every problem that has one.

    Empty for one algorithm alone, which would be measured by itself.
    """
    by_place = {(c.problem, c.algorithm): c for c in costs}
    shown = [p for p in problems if len(looks) > 1 and any(c.problem == p for c in costs)]
    rows = []
    for label, look in looks.items():
        cells = [Cell(label)]
        for problem in shown:
            cost = by_place.get((problem, label))
            cells.append(Cell("–") if cost is None else _target_cell(cost))
        rows.append(Row(cells, Key.of(look), look.number))
    return DataTable(("epochs to the target", *(f"#{p}" for p in shown)), rows if shown else ())


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


def _mean_places(results: Sequence[Result], problems: Sequence[str]) -> dict[str, float]:
    """Mean place of each algorithm over the problems, 0 the best; where a run failed, the last."""
    places: dict[str, list[int]] = {}
    for problem in problems:
        mine = [r for r in results if r.problem == problem]
        sign = -1 if mine and higher_is_better(mine[0].metric) else 1
        order = sorted(mine, key=lambda r: (not r.values, bool(r.failed), sign * r.mean))
        for place, result in enumerate(order):
            places.setdefault(result.algorithm, []).append(place)
    return {label: sum(found) / len(found) for label, found in places.items()}


def _overview_cell(result: Result, answer: Answer, letters: str) -> Cell:
    text = metric_text(result.mean, result.metric)
    if math.isfinite(result.deviation):
        text = f"{text.removesuffix(' %')} ± {spread_text(result.deviation, result.metric)}"
        text += " %" if result.metric.endswith("accuracy") else ""
    if result.failed:
        words = ", ".join(f"{count} {status}" for status, count in result.failed.items())
        return Cell(f"{text} ({words} of {result.planned})", "bad")
    if result.algorithm == answer.leader and answer.certain:
        return Cell(text, "best", "significantly better than all others", letters)
    hint = "best mean" if result.algorithm == answer.leader and answer.standings else ""
    return Cell(text, "", hint, letters)


def _standing_cells(standing: Standing | None) -> list[Cell]:
    if standing is None:
        return [Cell("–"), Cell("–")]
    refused = standing.word == "refused"
    lead = "" if refused else standing.text
    return [Cell(lead or "–"), Cell(_VERDICTS[standing.word], hint=standing.text * refused)]


def _between(low: float, high: float, metric: str) -> str:
    if not math.isfinite(low):
        return "–"
    return f"{metric_text(low, metric).removesuffix(' %')} to {metric_text(high, metric)}"


def _target_cell(cost: TargetCost) -> Cell:
    seeds = f"{cost.reached} of {len(cost.epochs)} seeds"
    if not math.isfinite(cost.median_epochs):
        return Cell(f"missed ({seeds})", "bad")
    spent = seconds_text(cost.median_seconds) if math.isfinite(cost.median_seconds) else ""
    words = "; ".join(filter(None, [spent, seeds if cost.reached < len(cost.epochs) else ""]))
    return Cell(significant(cost.median_epochs) + (f" ({words})" if words else ""))
