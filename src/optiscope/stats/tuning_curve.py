"""What tuning cost and found: expected best of n trials, edge of the space, bias of the winner.

Index legend: B different settings that were tried; n of them, 1 <= n <= B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from optiscope.records import higher_is_better
from optiscope.records.trial import canonical_json
from optiscope.stats.sensitivity import Edge, Tried, edges, selection_metric, tried
from optiscope.stats.study_table import StudyTables

__all__ = ["SelectionBias", "TuningSummary", "expected_best", "selection_bias", "tuning_summaries"]


@dataclass(frozen=True)
class SelectionBias:
    """How much better the winning trial looked in tuning than it is on fresh seeds.

    Attributes:
        tuned: its value in tuning.
        fresh: mean of the same metric over the reporting seeds.
        deviation: standard deviation over the reporting seeds (ddof 1).
        bias: advantage of ``tuned`` over ``fresh`` in these deviations; positive where tuning
            flattered it; None where the reporting seeds show no spread.
    """

    tuned: float
    fresh: float
    deviation: float
    bias: float | None


@dataclass(frozen=True)
class TuningSummary:
    """The tuning of one algorithm on one problem.

    Attributes:
        problem: name.
        algorithm: label.
        metric: that selected, ``valid_loss`` or another figure of the validation set.
        budget: B, different settings that ran, failed and pruned ones included.
        proposals: how often the sampler proposed one of them; more than B where it repeated some.
        failed: how many of them failed.
        pruned: how many the tuning ended early.
        charge: value that a failed or pruned trial is charged with: the worst that any trial of any
            algorithm reached on this problem; None where no trial reached its end.
        expected: [B] expected best of n trials for n = 1 .. B; None where no trial of any
            algorithm reached its end.
        resampled: whether ``expected`` resamples the trials; False for a sampler that learns from
            one trial to the next and for a pruner, where it is the best so far in their own order.
        edges: hyperparameters whose chosen value lies at the edge of the space, with the space to
            try next.
        selection: bias of the winner, None with fewer than two reporting seeds at their end.
    """

    problem: str
    algorithm: str
    metric: str
    budget: int
    proposals: int
    failed: int
    pruned: int
    charge: float | None
    expected: tuple[float, ...] | None
    resampled: bool
    edges: tuple[Edge, ...]
    selection: SelectionBias | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"expected": None if self.expected is None else list(self.expected)}


def expected_best(
    values: Sequence[float], n: int, *, higher_is_better: bool, charge: float | None = None
) -> float:
    """Mean of the best value over all subsets of n of the B stored trials.

    This is the expected validation performance of Dodge et al. 2019, *Show Your Work*, but
    without replacement (Tang et al. 2020): their resampling with replacement can draw one trial
    twice, and so understates what n different trials find.

    Args:
        values: [B] values of the trials, in any order; not finite means that the trial failed.
        n: size of the smaller budget.
        higher_is_better: True for accuracies, False for losses.
        charge: value of a failed trial; the worst of ``values`` by default.

    Raises:
        ValueError: n is not between 1 and B, or all trials failed and no charge is given.
    """
    if not 1 <= n <= len(values):
        raise ValueError(f"expected n between 1 and the {len(values)} stored trials, got {n}")
    sign = -1.0 if higher_is_better else 1.0
    costs = [sign * v if math.isfinite(v) else math.nan for v in values]
    if charge is None:
        if np.isnan(costs).all():
            raise ValueError("every trial failed: pass charge, the value of a failed trial")
        charge = sign * float(np.nanmax(costs))
    ordered = np.sort(np.where(np.isnan(costs), sign * charge, costs))
    total = len(ordered)
    # The best of a subset is entry i where the other n - 1 come from the total - 1 - i behind it.
    share = [math.comb(total - 1 - i, n - 1) / math.comb(total, n) for i in range(total)]
    return sign * float(ordered @ np.array(share))


def selection_bias(
    tuned: float, fresh: Sequence[float], *, higher_is_better: bool
) -> SelectionBias | None:
    """Bias of the winning trial from its value in tuning and its values on fresh seeds.

    None with fewer than two fresh values, or where the winner itself failed.
    """
    kept = np.array([v for v in fresh if math.isfinite(v)])
    if len(kept) < 2 or not math.isfinite(tuned):
        return None
    mean, deviation = float(kept.mean()), float(kept.std(ddof=1))
    flattered = (tuned - mean) if higher_is_better else (mean - tuned)
    return SelectionBias(tuned, mean, deviation, flattered / deviation if deviation > 0 else None)


def tuning_summaries(tables: StudyTables) -> list[TuningSummary]:
    """Every tuned algorithm on every problem, in the user's order."""
    metric = selection_metric(tables)
    better = higher_is_better(metric)
    summaries = []
    for problem in tables.problems:
        proposed = {label: tried(tables, problem, label) for label in tables.labels}
        found = {label: _different(points) for label, points in proposed.items()}
        finite = [p.value for points in found.values() for p in points if not p.failed]
        charge = (min(finite) if better else max(finite)) if finite else None
        for label, points in found.items():
            if not points:
                continue
            values = [p.value for p in points]
            algorithm = tables.algorithm(label)
            learns = algorithm.sampler == "tpe" or algorithm.pruner is not None
            chosen = next((p for p in points if p.chosen), None)
            summaries.append(
                TuningSummary(
                    problem=problem,
                    algorithm=label,
                    metric=metric,
                    budget=len(points),
                    proposals=len(proposed[label]),
                    failed=sum(p.failed and not p.pruned for p in points),
                    pruned=sum(p.pruned for p in points),
                    charge=charge,
                    expected=None if charge is None else _curve(values, charge, better, learns),
                    resampled=not learns,
                    edges=edges(algorithm.space, points),
                    selection=None
                    if chosen is None
                    else selection_bias(
                        chosen.value, _fresh(tables, problem, label), higher_is_better=better
                    ),
                )
            )
    return summaries


def _different(points: Sequence[Tried]) -> list[Tried]:
    """The first proposal of every setting: proposed again, it is the same trial."""
    first: dict[str, Tried] = {}
    for point in points:
        first.setdefault(canonical_json(dict(point.hyperparameters)), point)
    return list(first.values())


def _curve(
    values: Sequence[float], charge: float, better: bool, in_order: bool
) -> tuple[float, ...]:
    if in_order:
        charged = [v if math.isfinite(v) else charge for v in values]
        best = np.maximum if better else np.minimum
        return tuple(float(v) for v in best.accumulate(charged))
    return tuple(
        expected_best(values, n, higher_is_better=better, charge=charge)
        for n in range(1, len(values) + 1)
    )


def _fresh(tables: StudyTables, problem: str, label: str) -> list[float]:
    rows = tables.of(problem, label, "reporting")
    column = f"final_{selection_metric(tables)}"
    if column not in rows.columns:
        return []
    complete = rows["complete"].astype(bool)
    return [float(v) for v in pd.to_numeric(rows[column][complete])]
