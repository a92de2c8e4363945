"""What each algorithm reached on each problem: final values, spread, cost and failures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from optiscope.records import Status, higher_is_better
from optiscope.stats.hardware import time_refusal
from optiscope.stats.study_table import DAMAGED, MISSING, PHASES, StudyTables

__all__ = [
    "FAILED",
    "Cost",
    "Result",
    "costs",
    "failures",
    "higher_is_better",
    "results",
    "time_refused",
]

FAILED: Final = tuple(
    str(s) for s in (Status.DIVERGED, Status.CRASHED, Status.TIMED_OUT, Status.INTERRUPTED)
)
"""Statuses of runs that ended before an end of their own."""


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
        refused: why the seconds of this problem cannot be compared, and ``ratios`` is empty; None
            where they can.

    Runs that were resumed, or shared a device, are in none of these seconds.
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
    refused: str | None = None


def results(tables: StudyTables) -> list[Result]:
    """One result per problem and algorithm, in the user's order."""
    return [
        _result(tables, problem, label) for problem in tables.problems for label in tables.labels
    ]


def costs(tables: StudyTables) -> list[Cost]:
    """One cost per problem and algorithm that took a step, in the user's order."""
    found = []
    for problem in tables.problems:
        refused = time_refused(tables, problem)
        reference = _wall_per_step(tables, problem, str(tables.declaration["reference"]))
        for label in tables.labels:
            cost = _cost(tables, problem, label, {} if refused else reference, refused)
            if cost is not None:
                found.append(cost)
    return found


def time_refused(tables: StudyTables, problem: str) -> str | None:
    """Why seconds of the reporting runs on a problem cannot be compared; None where they can."""
    runs = tables.runs
    rows = runs[(runs["problem"] == problem) & (runs["role"] == "reporting")]
    known = rows[rows["hardware"].notna()]
    return time_refusal(
        problem,
        known["hardware"][_timed(known)].tolist(),
        [reason for reason in known["untimed"].tolist() if isinstance(reason, str)],
    )


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
        interval=_interval(mean, half, lowest=float(array.min()) if len(array) else math.nan),
        hyperparameters=dict(hyperparameters),
        imported=bool(rows["imported"].notna().any()),
    )


def _interval(mean: float, half: float, *, lowest: float) -> tuple[float, float]:
    """95 % interval of a mean; what was never below zero has none of it there."""
    low = mean - half
    return (max(low, 0.0) if lowest >= 0 and not math.isnan(low) else low), mean + half


def _wall_per_step(tables: StudyTables, problem: str, label: str) -> dict[int, float]:
    """Seconds of training per step, by seed, of the runs that took a step and were timed."""
    rows = tables.of(problem, label, "reporting")
    per_step = _numbers(rows, "training_wall") / _numbers(rows, "steps")
    kept = _timed(rows)
    return dict(zip(rows["seed"].to_numpy()[kept].tolist(), per_step[kept].tolist(), strict=True))


def _cost(
    tables: StudyTables,
    problem: str,
    label: str,
    reference: Mapping[int, float],
    refused: str | None,
) -> Cost | None:
    wall = _wall_per_step(tables, problem, label)
    if not wall:
        return None
    rows = tables.of(problem, label, "reporting")
    rows = rows[_timed(rows)]
    steps = _numbers(rows, "steps")
    phases = {phase: _numbers(rows, f"wall_{phase}") / steps for phase in PHASES}
    memory = _numbers(rows, "peak_memory_bytes")
    total = _numbers(rows, "training_wall")[rows["complete"].to_numpy(bool)]
    return Cost(
        problem=problem,
        algorithm=label,
        wall=tuple(wall.values()),
        cpu=tuple((_numbers(rows, "training_cpu") / steps).tolist()),
        ratios=tuple(wall[seed] / reference[seed] for seed in wall if seed in reference),
        phases={p: float(v.mean()) for p, v in phases.items() if not np.isnan(v).any()},
        gradient_evaluations=float((_numbers(rows, "gradient_evaluations") / steps).mean()),
        hessian_products=float((_numbers(rows, "hessian_products") / steps).mean()),
        peak_memory_bytes=None if np.isnan(memory).all() else int(np.nanmax(memory)),
        total_wall=float(total.mean()) if len(total) else math.nan,
        refused=refused,
    )


def _timed(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Runs that took a step, were timed, and had their device to themselves throughout."""
    alone = rows["untimed"].isna().to_numpy(bool)
    return alone & (_numbers(rows, "steps") > 0) & (_numbers(rows, "training_wall") > 0)


def _numbers(rows: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column as floats, NaN where a run has no such value."""
    if column not in rows.columns:
        return np.full(len(rows), math.nan)
    return rows[column].to_numpy(float, na_value=math.nan)
