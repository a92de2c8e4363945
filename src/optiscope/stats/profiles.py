"""Many problems at once: cost to a target, performance profiles, and ranks with intervals.

Sources: Dolan & Moré 2002 (performance profiles); Dahl et al. 2023 (targets from a reference).
Index legend: P problems, A algorithms, S seeds, T factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from optiscope.records import higher_is_better
from optiscope.stats.study_table import NO_OUTCOME, StudyTables
from optiscope.stats.summary import time_refused

__all__ = [
    "PerformanceProfile",
    "Rank",
    "TargetCost",
    "has_outcome",
    "performance_profile",
    "ranks",
    "target",
    "target_costs",
]

RESAMPLES: Final = 2000
"""Draws of seeds behind an interval of a rank."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TargetCost:
    """What one algorithm needs to reach the target of one problem.

    Attributes:
        problem: name.
        algorithm: label.
        target: value of the reported metric, the median final value of the reference (of an even
            number of seeds the worse of the middle two).
        epochs: of each seed, to the first measurement at the target or beyond; infinite for a
            run that missed it or failed.
        seconds: of each seed, wall time of training until then; infinite in the same cases, NaN
            where times cannot be compared: on different hardware, resumed, or on a shared device.
    """

    problem: str
    algorithm: str
    target: float
    epochs: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def reached(self) -> int:
        """Seeds that reached the target."""
        return sum(math.isfinite(e) for e in self.epochs)

    @property
    def median_epochs(self) -> float:
        """Median over seeds; infinite where half of them or more missed the target."""
        return _upper_median(self.epochs)

    @property
    def median_seconds(self) -> float:
        """Median of the comparable seconds; infinite as for the epochs, NaN without any."""
        return _upper_median([s for s in self.seconds if not math.isnan(s)])


@dataclass(frozen=True)
class PerformanceProfile:
    """Share of problems solved within a factor of the best algorithm's cost.

    Attributes:
        factors: [T] from 1 to the largest finite ratio.
        shares: per label [T], of all problems, those included that no algorithm solved.
        problems: number P.
        unsolved: problems whose target no algorithm reached.
    """

    factors: Array
    shares: Mapping[str, Array]
    problems: int
    unsolved: tuple[str, ...]


@dataclass(frozen=True)
class Rank:
    """Mean rank of one algorithm over problems and seeds, 1 being the best.

    Attributes:
        algorithm: label.
        mean: over problems of the mean over seeds.
        interval: without the outer twentieth, of draws of seeds with replacement on every problem.
            No 95 % interval: it covers 91 to 93 % of the time with ten seeds, 73 to 85 with three.
        without_one: lowest and highest mean when each problem is left out in turn.
    """

    algorithm: str
    mean: float
    interval: tuple[float, float]
    without_one: tuple[float, float]


def target(tables: StudyTables, problem: str) -> float:
    """Median final value of the reference; infinitely bad where most of its runs failed.

    Of an even number of seeds the worse of the middle two, so that half of them and one reach it.
    """
    metric = tables.metric(problem)
    worst = -math.inf if higher_is_better(metric) else math.inf
    rows = tables.of(problem, str(tables.declaration["reference"]), "reporting")
    rows = rows[~rows["status"].isin(NO_OUTCOME)]
    values = _outcomes(rows, metric, worst)
    return _upper_median(values.tolist(), largest_is_worst=worst > 0)


def has_outcome(tables: StudyTables, problem: str, label: str) -> bool:
    """Whether a reporting run of an algorithm on a problem has ended, well or not."""
    return bool((~tables.of(problem, label, "reporting")["status"].isin(NO_OUTCOME)).any())


def target_costs(tables: StudyTables, labels: Sequence[str]) -> list[TargetCost]:
    """Epochs and seconds to the target, per problem and algorithm that have curves.

    Problems whose reference has no finite median are left out: they set no target.
    """
    found = []
    for problem in tables.problems:
        goal = target(tables, problem)
        if not math.isfinite(goal):
            continue
        for label in labels:
            cost = _target_cost(tables, problem, label, goal)
            if cost is not None:
                found.append(cost)
    return found


def performance_profile(costs: Mapping[str, Mapping[str, float]]) -> PerformanceProfile:
    """The profile of costs by problem and label; an infinite cost is a problem not solved.

    Raises:
        ValueError: no problems, or problems with different algorithms.
    """
    problems = list(costs)
    labels = list(costs[problems[0]]) if problems else []
    if not labels or any(list(costs[p]) != labels for p in problems):
        raise ValueError(
            "a performance profile needs the cost of every algorithm on every problem, got "
            + (", ".join(f"{p}: {len(costs[p])} algorithms" for p in problems) or "no problem")
        )
    table = np.array([[costs[p][label] for label in labels] for p in problems])  # [P, A]
    best = table.min(axis=1)
    solved = np.isfinite(best)
    ratios = np.full_like(table, math.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios[solved] = np.where(
            table[solved] == best[solved, None], 1.0, table[solved] / best[solved, None]
        )
    factors = np.unique(np.append(ratios[np.isfinite(ratios)], 1.0))
    shares = {
        label: (ratios[:, [a]] <= factors * (1 + 1e-12)).mean(axis=0)
        for a, label in enumerate(labels)
    }
    unsolved = tuple(p for p, ok in zip(problems, solved, strict=True) if not ok)
    return PerformanceProfile(factors, shares, len(problems), unsolved)


def ranks(
    tables: StudyTables, labels: Sequence[str], *, generator: np.random.Generator
) -> list[Rank]:
    """Mean rank of each algorithm by final value; failed runs share the last ranks of their seed.

    Seeds of which an algorithm has no record are left out for all. Empty without problems on which
    at least one seed is common to all algorithms.
    """
    per_problem = [
        ranked
        for problem in tables.problems
        if len(ranked := _ranks_per_seed(tables, problem, labels))
    ]
    if not per_problem:
        return []
    means = np.array([r.mean(axis=0) for r in per_problem])  # [P, A]
    drawn = np.zeros((RESAMPLES, len(labels)))
    for ranked in per_problem:
        picks = generator.integers(len(ranked), size=(RESAMPLES, len(ranked)))
        drawn += ranked[picks].mean(axis=1) / len(per_problem)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    others = (means.sum(axis=0) - means) / max(1, len(means) - 1)
    without = others if len(means) > 1 else means
    return [
        Rank(
            label,
            float(means[:, a].mean()),
            (float(low[a]), float(high[a])),
            (float(without[:, a].min()), float(without[:, a].max())),
        )
        for a, label in enumerate(labels)
    ]


def _ranks_per_seed(tables: StudyTables, problem: str, labels: Sequence[str]) -> Array:
    """[S, A] ranks of the algorithms with each seed that all of them have a record of."""
    metric = tables.metric(problem)
    sign = -1.0 if higher_is_better(metric) else 1.0
    by_label = []
    for label in labels:
        rows = tables.of(problem, label, "reporting")
        rows = rows[~rows["status"].isin(NO_OUTCOME)]
        values = sign * _outcomes(rows, metric, sign * math.inf)
        by_label.append(dict(zip(rows["seed"].tolist(), values.tolist(), strict=True)))
    common = [seed for seed in by_label[0] if all(seed in values for values in by_label)]
    if not common:
        return np.zeros((0, len(labels)))
    table = np.array([[values[seed] for values in by_label] for seed in common])
    ranked: Array = stats.rankdata(table, axis=1)
    return ranked


def _outcomes(rows: pd.DataFrame, metric: str, worst: float) -> Array:
    """Final test values, ``worst`` where a run did not reach its end."""
    column = f"final_test_{metric}"
    if column not in rows.columns:
        return np.full(len(rows), worst)
    values = pd.to_numeric(rows[column]).to_numpy(float)
    sound = rows["complete"].astype(bool).to_numpy() & np.isfinite(values)
    return np.where(sound, values, worst)


def _target_cost(tables: StudyTables, problem: str, label: str, goal: float) -> TargetCost | None:
    metric = tables.metric(problem)
    curves = tables.curve_groups.get((problem, label, "test", metric))
    runs = tables.of(problem, label, "reporting")
    runs = runs[~runs["status"].isin(NO_OUTCOME)]
    if curves is None or runs.empty:
        return None
    epochs, seconds = [], []
    horizon = float(tables.declaration["epochs"][problem])
    refused = time_refused(tables, problem) is not None
    for seed, complete, wall, untimed in zip(
        runs["seed"].tolist(),
        runs["complete"].tolist(),
        pd.to_numeric(runs["training_wall"]).tolist(),
        runs["untimed"].tolist(),
        strict=True,
    ):
        rows = curves[curves["seed"] == seed]
        values, at = rows["value"].to_numpy(float), rows["epoch"].to_numpy(float)
        hits = values >= goal if higher_is_better(metric) else values <= goal
        reached = float(at[hits].min()) if complete and hits.any() else math.inf
        trained = float(at.max()) if len(at) else horizon
        epochs.append(reached)
        share = reached / trained if trained > 0 else 0.0
        spent = share * wall if math.isfinite(reached) else math.inf
        seconds.append(math.nan if refused or isinstance(untimed, str) else spent)
    return TargetCost(problem, label, goal, tuple(epochs), tuple(seconds))


def _upper_median(values: Sequence[float], *, largest_is_worst: bool = True) -> float:
    """The median, the worse of the middle two where their number is even."""
    ordered = sorted(values, reverse=not largest_is_worst)
    return ordered[len(ordered) // 2] if ordered else math.nan
