"""What each algorithm reached on each problem: final values, spread, cost and failures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from optiscope.records import Status
from optiscope.stats.study_table import DAMAGED, MISSING, PHASES, StudyTables

__all__ = ["FAILED", "Cost", "Result", "costs", "failures", "higher_is_better", "results"]

FAILED: Final = tuple(
    str(s) for s in (Status.DIVERGED, Status.CRASHED, Status.TIMED_OUT, Status.INTERRUPTED)
)
"""Statuses of runs that ended before an end of their own."""


def higher_is_better(metric: str) -> bool:
    """Whether a larger value is better: False for losses only."""
    return not metric.endswith("loss")


@dataclass(frozen=True)
class Result:
    """Final values of one algorithm on one problem, over the reporting seeds.

    Mean, deviation and range are over the runs that reached their end; ``failed`` counts the
    others, which have no final value and get none.

    Attributes:
        problem: name.
        algorithm: label.
        metric: what ``values`` hold, on the test split: ``accuracy`` (a fraction) or ``loss``.
        values: final value per seed, of the runs that reached their end.
        planned: reporting seeds of the study.
        failed: runs per status other than finished and stopped (``missing``, ``damaged`` too).
        mean: of the values; NaN without any.
        deviation: standard deviation over seeds (ddof 1); NaN below two values.
        interval: 95 % interval of the mean by Student's t; NaN below two values.
        hyperparameters: what tuning chose, or what was fixed.
        imported: whether the runs were published elsewhere and read in.
    """

    problem: str
    algorithm: str
    metric: str
    values: Mapping[int, float]
    planned: int
    failed: Mapping[str, int]
    mean: float
    deviation: float
    interval: tuple[float, float]
    hyperparameters: Mapping[str, Any]
    imported: bool

    @property
    def all_complete(self) -> bool:
        """Whether every planned run reached its end."""
        return len(self.values) == self.planned

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value; NaN without any."""
        if not self.values:
            return math.nan, math.nan
        return min(self.values.values()), max(self.values.values())


@dataclass(frozen=True)
class Cost:
    """Seconds per training step of one algorithm on one problem, beside the reference's.

    Evaluation and instruments are not training time and not in ``wall`` or ``cpu``.

    Attributes:
        wall: wall-clock seconds per step, one per seed.
        cpu: CPU seconds per step, summed over threads, one per seed.
        ratios: wall seconds per step over the reference's of the same seed.
        phases: mean wall seconds per step of each phase, evaluation and instruments included.
        gradient_evaluations: per step.
        hessian_products: per step.
        peak_memory_bytes: largest over the seeds, or None where unknown.
        total_wall: mean wall seconds of training of a whole run.
    """

    problem: str
    algorithm: str
    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    ratios: tuple[float, ...]
    phases: Mapping[str, float]
    gradient_evaluations: float
    hessian_products: float
    peak_memory_bytes: int | None
    total_wall: float


def results(tables: StudyTables) -> list[Result]:
    """One result per problem and algorithm, in the user's order."""
    return [
        _result(tables, problem, label) for problem in tables.problems for label in tables.labels
    ]


def costs(tables: StudyTables) -> list[Cost]:
    """One cost per problem and algorithm that took a step, in the user's order."""
    found = []
    for problem in tables.problems:
        reference = _seconds_per_step(tables, problem, str(tables.declaration["reference"]))
        for label in tables.labels:
            cost = _cost(tables, problem, label, reference)
            if cost is not None:
                found.append(cost)
    return found


def failures(tables: StudyTables) -> pd.DataFrame:
    """Rows of ``runs`` that did not reach their end, reporting first; missing ones are not here."""
    bad = tables.runs["status"].isin([*FAILED, DAMAGED])
    return tables.runs[bad].sort_values("role", kind="stable")


def _result(tables: StudyTables, problem: str, label: str) -> Result:
    metric = tables.metric(problem)
    rows = tables.of(problem, label, "reporting")
    column = f"final_test_{metric}"
    complete = rows[rows["complete"].astype(bool)]
    values = (
        {int(s): float(v) for s, v in zip(complete["seed"], complete[column], strict=True)}
        if column in rows.columns
        else {}
    )
    values = {seed: value for seed, value in values.items() if math.isfinite(value)}
    array = np.array(list(values.values()))
    deviation = float(array.std(ddof=1)) if len(array) > 1 else math.nan
    mean = float(array.mean()) if len(array) else math.nan
    half = (
        float(stats.t.ppf(0.975, len(array) - 1)) * deviation / math.sqrt(len(array))
        if len(array) > 1
        else math.nan
    )
    bad = rows[~rows["complete"].astype(bool)]["status"].value_counts()
    planned = len(tables.declaration["seeds"])
    unplanned = planned - len(rows)
    failed = {str(status): int(count) for status, count in bad.items()}
    if unplanned > 0:
        failed[MISSING] = failed.get(MISSING, 0) + unplanned
    hyperparameters = rows["hyperparameters"].iloc[0] if len(rows) else {}
    return Result(
        problem=problem,
        algorithm=label,
        metric=metric,
        values=values,
        planned=max(planned, len(rows)),
        failed=failed,
        mean=mean,
        deviation=deviation,
        interval=(mean - half, mean + half),
        hyperparameters=dict(hyperparameters),
        imported=bool(rows["imported"].notna().any()),
    )


def _seconds_per_step(tables: StudyTables, problem: str, label: str) -> pd.DataFrame:
    rows = tables.of(problem, label, "reporting")
    steps = pd.to_numeric(rows["steps"])
    rows = rows[steps > 0]
    per_step = pd.DataFrame({"seed": rows["seed"]})
    for kind in ("wall", "cpu"):
        per_step[kind] = pd.to_numeric(rows[f"training_{kind}"]) / pd.to_numeric(rows["steps"])
    return per_step[per_step["wall"] > 0].set_index("seed")


def _cost(tables: StudyTables, problem: str, label: str, reference: pd.DataFrame) -> Cost | None:
    per_step = _seconds_per_step(tables, problem, label)
    if per_step.empty:
        return None
    rows = tables.of(problem, label, "reporting")
    rows = rows[rows["seed"].isin(per_step.index)]
    steps = pd.to_numeric(rows["steps"])
    phases = {
        phase: float((pd.to_numeric(rows[f"wall_{phase}"]) / steps).mean())
        for phase in PHASES
        if f"wall_{phase}" in rows.columns and rows[f"wall_{phase}"].notna().any()
    }
    shared = per_step.index.intersection(reference.index)
    ratios = per_step.loc[shared, "wall"] / reference.loc[shared, "wall"]
    memory = pd.to_numeric(rows["peak_memory_bytes"]).max()
    complete = rows[rows["complete"].astype(bool)]
    return Cost(
        problem=problem,
        algorithm=label,
        wall=tuple(per_step["wall"]),
        cpu=tuple(per_step["cpu"]),
        ratios=tuple(float(r) for r in ratios),
        phases=phases,
        gradient_evaluations=_per_step(rows["gradient_evaluations"], steps),
        hessian_products=_per_step(rows["hessian_products"], steps),
        peak_memory_bytes=None if pd.isna(memory) else int(memory),
        total_wall=float(pd.to_numeric(complete["training_wall"]).mean()),
    )


def _per_step(counts: pd.Series[Any], steps: pd.Series[Any]) -> float:
    return float((pd.to_numeric(counts) / steps).mean())
