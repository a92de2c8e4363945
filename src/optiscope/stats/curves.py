"""Learning curves over seeds: mean and range of the runs that reached their end.

Index legend: E epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optiscope.stats.study_table import StudyTables

__all__ = ["Curve", "SingleRun", "curve", "measured"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SingleRun:
    """The curve of one run that failed, as far as it was measured.

    Attributes:
        seed: of the run.
        status: how it ended.
        epochs: [E].
        values: [E] finite values only.
        last_epoch: of the last measurement, finite or not; where the failure is marked.
    """

    seed: int
    status: str
    epochs: Array
    values: Array
    last_epoch: float


@dataclass(frozen=True)
class Curve:
    """One metric of one algorithm on one problem against epochs.

    A failed run is never averaged with the others: it stands by itself in ``failed``. A run that
    stopped early keeps its last value, so that the mean ends where the table of results has it.

    Attributes:
        epochs: [E] epochs at which a run that reached an end of its own was measured.
        mean: [E] over those runs.
        low: [E] smallest value.
        high: [E] largest value.
        complete: runs that reached an end of their own.
        failed: the other runs, one by one.
    """

    epochs: Array
    mean: Array
    low: Array
    high: Array
    complete: int
    failed: tuple[SingleRun, ...]


def measured(tables: StudyTables, problem: str) -> list[tuple[str, str]]:
    """Pairs of split and name that the reporting runs of a problem measured."""
    pairs = [(split, name) for p, _, split, name in tables.curve_groups if p == problem]
    return list(dict.fromkeys(pairs))


def curve(tables: StudyTables, problem: str, label: str, split: str, name: str) -> Curve | None:
    """The curve of one metric, or None where it was never measured."""
    rows = tables.curve_groups.get((problem, label, split, name))
    if rows is None:
        return None
    runs = tables.of(problem, label, "reporting").set_index("seed")
    complete = set(runs.index[runs["complete"].astype(bool)])
    finite = rows[np.isfinite(rows["value"])]
    kept = finite[finite["seed"].isin(complete)]
    table = kept.assign(epoch=kept["epoch"].round(6)).pivot_table(
        index="epoch", columns="seed", values="value"
    )  # [E, seeds]
    stopped = table[::-1].isna().cummin()[::-1]
    table = table.mask(stopped, table.ffill())
    failed = tuple(
        _single(seed, str(runs.at[seed, "status"]), rows[rows["seed"] == seed])
        for seed in sorted(set(rows["seed"].tolist()) - complete)
    )
    return Curve(
        epochs=table.index.to_numpy(float),
        mean=table.mean(axis=1).to_numpy(float),
        low=table.min(axis=1).to_numpy(float),
        high=table.max(axis=1).to_numpy(float),
        complete=int(kept["seed"].nunique()),
        failed=failed,
    )


def _single(seed: int, status: str, rows: pd.DataFrame) -> SingleRun:
    finite = rows[np.isfinite(rows["value"])]
    return SingleRun(
        seed=seed,
        status=status,
        epochs=finite["epoch"].to_numpy(float),
        values=finite["value"].to_numpy(float),
        last_epoch=float(rows["epoch"].max()),
    )
