"""What tuning tried: result against each hyperparameter, the edge of the space, the good range."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from optiscope.records import Status, higher_is_better
from optiscope.stats.study_table import NO_OUTCOME, PRUNED, StudyTables

__all__ = [
    "Edge",
    "GoodRange",
    "Sensitivity",
    "Tried",
    "edge_of_space",
    "edges",
    "numeric_names",
    "selection_metric",
    "sensitivity",
    "tried",
]

EDGE_SHARE: Final = 0.05
"""A value within this share of the space's width (in logarithms where ``log``) is at its edge."""

TOLERANCE: Final = {"accuracy": 0.01, "loss": 0.1}
"""Good is within one point of the best accuracy, or within a tenth of the best loss."""


@dataclass(frozen=True)
class Tried:
    """One point H of the tuning, over its tuning seeds.

    Attributes:
        index: its number in the tuning.
        hyperparameters: H.
        value: mean of the selection metric over the tuning seeds; NaN where one run failed.
        statuses: of its runs.
        reason: of the first run that failed, else empty.
        chosen: whether the reporting runs use it.
    """

    index: int
    hyperparameters: Mapping[str, Any]
    value: float
    statuses: tuple[str, ...]
    reason: str
    chosen: bool

    @property
    def failed(self) -> bool:
        """Whether one of its runs did not reach its end, of its own or because it was pruned."""
        return not math.isfinite(self.value)

    @property
    def pruned(self) -> bool:
        """Whether the tuning ended it, and nothing else was wrong with it."""
        return PRUNED in self.statuses and all(
            status == PRUNED or Status(status).complete for status in self.statuses
        )


@dataclass(frozen=True)
class Edge:
    """The chosen value lies at the edge of its search space, or of what was tried of it.

    Attributes:
        name: of the hyperparameter.
        value: chosen.
        side: ``low`` or ``high``.
        suggestion: the space to try next, as the study file would say it.
    """

    name: str
    value: float
    side: str
    suggestion: Mapping[str, Any]


@dataclass(frozen=True)
class GoodRange:
    """Neighbouring values around the best one whose result is as good within the tolerance.

    Attributes:
        low: smallest such value that was tried.
        high: largest.
        trials: number of values between them, both included.
        tolerance: see :data:`TOLERANCE`.
    """

    low: float
    high: float
    trials: int
    tolerance: float

    @property
    def factor(self) -> float:
        """``high / low``; NaN where ``low`` is not positive."""
        return self.high / self.low if self.low > 0 else math.nan


@dataclass(frozen=True)
class Sensitivity:
    """Result against one hyperparameter, sorted by its value.

    Attributes:
        name: of the hyperparameter.
        metric: selection metric, ``valid_loss`` or ``valid_accuracy``.
        values: tried values.
        results: selection metric, NaN where the trial failed.
        chosen: value of the reporting runs, or None.
        space: its declared dimension.
        log: whether the space is logarithmic.
        failed_below: every trial with a value up to this one failed; None where the lowest did not.
        failed_above: every trial with a value from this one on failed; None in the same case.
        good: range of good values, None where every trial failed.
        edge: set where the chosen value lies at the edge of the space or of what was tried.
    """

    name: str
    metric: str
    values: tuple[float, ...]
    results: tuple[float, ...]
    chosen: float | None
    space: Mapping[str, Any]
    log: bool
    failed_below: float | None
    failed_above: float | None
    good: GoodRange | None
    edge: Edge | None


def selection_metric(tables: StudyTables) -> str:
    """The metric that tuning selects by: ``valid_loss`` or ``valid_accuracy``."""
    return str(tables.declaration["tuning"]["select"])


def tried(tables: StudyTables, problem: str, label: str) -> list[Tried]:
    """Points of the tuning in the order in which they were tried.

    Trials without an outcome (missing, damaged, interrupted) are left out: they will run again.
    """
    column = f"final_{selection_metric(tables)}"
    rows = tables.of(problem, label, "tuning")
    reporting = tables.of(problem, label, "reporting")["hyperparameters"]
    chosen = dict(reporting.iloc[0]) if len(reporting) else None
    shown = ["index", "hyperparameters", "status", "reason", "complete"]
    by_index: dict[int, list[dict[Hashable, Any]]] = {}
    for row in rows.reindex(columns=[*shown, column]).to_dict("records"):
        if row["status"] not in NO_OUTCOME:
            by_index.setdefault(int(row["index"]), []).append(row)
    return [_tried(index, by_index[index], column, chosen) for index in sorted(by_index)]


def _tried(
    index: int,
    rows: Sequence[Mapping[Hashable, Any]],
    column: str,
    chosen: Mapping[str, Any] | None,
) -> Tried:
    failed = [row for row in rows if not row["complete"]]
    value = math.nan if failed else sum(float(row[column]) for row in rows) / len(rows)
    hyperparameters = dict(rows[0]["hyperparameters"])
    return Tried(
        index=index,
        hyperparameters=hyperparameters,
        value=value if math.isfinite(value) else math.nan,
        statuses=tuple(row["status"] for row in rows),
        reason=str(failed[0]["reason"]) if failed else "",
        chosen=hyperparameters == chosen,
    )


def numeric_names(space: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the dimensions that hold numbers, the learning rate first."""

    def is_numeric(dimension: Mapping[str, Any]) -> bool:
        choices = dimension.get("choice")
        return choices is None or all(
            isinstance(c, int | float) and not isinstance(c, bool) for c in choices
        )

    names = [name for name, dimension in space.items() if is_numeric(dimension)]
    return sorted(names, key=lambda name: name != "lr")


def sensitivity(
    tables: StudyTables, label: str, name: str, points: Sequence[Tried]
) -> Sensitivity | None:
    """Result of the points tried against the hyperparameter ``name``, or None without points."""
    points = sorted(
        (p for p in points if name in p.hyperparameters), key=lambda p: p.hyperparameters[name]
    )
    if not points:
        return None
    metric = selection_metric(tables)
    space = tables.algorithm(label).space.get(name, {})
    values = tuple(float(p.hyperparameters[name]) for p in points)
    results = tuple(p.value for p in points)
    distinct = sorted(set(values))
    failed = [
        all(p.failed for p, value in zip(points, values, strict=True) if value == one)
        for one in distinct
    ]
    chosen = next((float(p.hyperparameters[name]) for p in points if p.chosen), None)
    leading = failed.index(False) if False in failed else len(failed)
    trailing = failed[::-1].index(False) if False in failed else len(failed)
    return Sensitivity(
        name=name,
        metric=metric,
        values=values,
        results=results,
        chosen=chosen,
        space=space,
        log=bool(space.get("log", _looks_logarithmic(values))),
        failed_below=distinct[leading - 1] if leading and trailing < len(failed) else None,
        failed_above=distinct[-trailing] if trailing else None,
        good=_good_range(values, results, metric),
        edge=None if chosen is None else edge_of_space(name, chosen, space, values),
    )


def edges(space: Mapping[str, Mapping[str, Any]], points: Sequence[Tried]) -> tuple[Edge, ...]:
    """Every hyperparameter whose chosen value lies at the edge of its space or of what was tried.

    Args:
        space: Φ.
        points: of the tuning; without a chosen one there are no edges.
    """
    chosen = next((p.hyperparameters for p in points if p.chosen), {})
    found = []
    for name in numeric_names(space):
        if name in chosen:
            values = [float(p.hyperparameters[name]) for p in points if name in p.hyperparameters]
            found.append(edge_of_space(name, float(chosen[name]), space[name], values))
    return tuple(edge for edge in found if edge is not None)


def edge_of_space(
    name: str, value: float, space: Mapping[str, Any], values: Sequence[float] = ()
) -> Edge | None:
    """Whether a chosen value lies at the edge of its space, with the space to try next.

    It does within a twentieth of the space's width from an end, and also where it is the smallest
    or the largest of at least three tried ``values``: nothing was tried beyond it. Then the space
    to try is what lies between its neighbour and the end.

    A logarithmic space is moved on by half its width beyond that edge, at least by a factor of
    ten; a linear one by half its width, a lower end of zero or more staying at zero or more. Of a
    list of choices, the first and the last number are edges. What must stay below one (momentum, a
    beta) moves towards one by a tenth of what is left.
    """
    choices = space.get("choice")
    if choices is not None:
        return _edge_of_choices(name, value, choices)
    if "low" not in space or "high" not in space:
        return None
    low, high = float(space["low"]), float(space["high"])
    if space.get("log"):
        width = math.log(high / low)
        place = math.log(value / low) / width if width > 0 else 0.5
        move = max(10.0, math.exp(width / 2))
        lower = {"low": low / move, "high": math.sqrt(low * high), "log": True}
        upper = {"low": math.sqrt(low * high), "high": high * move, "log": True}
    else:
        width = high - low
        place = (value - low) / width if width > 0 else 0.5
        below = low - width / 2
        lower = {"low": max(0.0, below) if low >= 0 else below, "high": low + width / 2}
        upper = {"low": low + width / 2, "high": high + width / 2}
        if lower["low"] == low:
            lower = {}
    if _below_one(name, high):
        upper = {"low": (low + high) / 2, "high": 1 - (1 - high) / 10}
    if lower and place <= EDGE_SHARE:
        return Edge(name, value, "low", lower)
    if place >= 1 - EDGE_SHARE:
        return Edge(name, value, "high", upper)
    tried, log = sorted(set(values)), {"log": True} if space.get("log") else {}
    if len(tried) >= 3 and low < value <= tried[0]:
        return Edge(name, value, "low", {"low": low, "high": tried[1], **log})
    if len(tried) >= 3 and value >= tried[-1]:
        return Edge(name, value, "high", {"low": tried[-2], "high": high, **log})
    return None


def _edge_of_choices(name: str, value: float, choices: Sequence[Any]) -> Edge | None:
    numbers = sorted(float(c) for c in choices if isinstance(c, int | float))
    if len(numbers) < 3 or value not in (numbers[0], numbers[-1]):
        return None
    at_low = value == numbers[0]
    kept = numbers[:2] if at_low else numbers[-2:]
    if not at_low and _below_one(name, kept[1]):
        more = [1 - (1 - kept[1]) / 10]
    elif kept[0] > 0:
        ratio = kept[1] / kept[0]
        more = [kept[0] / ratio**2, kept[0] / ratio] if at_low else [kept[1] * ratio]
        more += [] if at_low else [kept[1] * ratio**2]
    else:
        return None
    return Edge(name, value, "low" if at_low else "high", {"choice": sorted(more + kept)})


def _below_one(name: str, largest: float) -> bool:
    """Whether a hyperparameter is the weight of an average, which must stay below one."""
    return largest < 1 and name.startswith(("momentum", "beta", "rho"))


def _good_range(values: Sequence[float], results: Sequence[float], metric: str) -> GoodRange | None:
    array = np.array(results)
    if not np.isfinite(array).any():
        return None
    if higher_is_better(metric):
        tolerance = TOLERANCE["accuracy"]
        best = int(np.nanargmax(array))
        good = array >= array[best] - tolerance
    else:
        tolerance = TOLERANCE["loss"]
        best = int(np.nanargmin(array))
        good = array <= array[best] + tolerance * abs(array[best])
    low = high = best
    while low > 0 and good[low - 1]:
        low -= 1
    while high + 1 < len(good) and good[high + 1]:
        high += 1
    return GoodRange(values[low], values[high], high - low + 1, tolerance)


def _looks_logarithmic(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > 30
