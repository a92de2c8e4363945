"""Published results of a problem, read in beside a study: curves that enter no claim.

Index legend: E epochs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optiscope.records import Run
from optiscope.records.trial import canonical_json

__all__ = ["PublishedCurve", "PublishedSetting", "published_settings"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PublishedCurve:
    """One metric of a published setting.

    Attributes:
        epochs: [E].
        mean: [E] over its runs, or the published mean.
        low: [E] lowest of its runs, or the mean less the published standard deviation; NaN where
            no spread is known.
        high: [E] highest of its runs, or the mean plus the published standard deviation; NaN where
            no spread is known.
    """

    epochs: Array
    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class PublishedSetting:
    """Runs of one optimizer with one H from one source.

    Attributes:
        source: where they came from.
        optimizer: name that the source gives it.
        hyperparameters: everything the source states.
        epochs: horizon.
        runs: records, one per seed, or one that holds means over seeds.
    """

    source: str
    optimizer: str
    hyperparameters: Mapping[str, Any]
    epochs: int
    runs: tuple[Run, ...]

    @property
    def failed(self) -> list[Run]:
        """Runs that did not come to their end."""
        return [run for run in self.runs if not run.status.complete]

    def final(self, key: str) -> float:
        """Mean final value of ``split_name``; NaN where it was not published or a run failed."""
        values = [run.final.get(key, math.nan) for run in self.runs]
        return math.nan if self.failed else float(np.mean(values))

    def curve(self, split: str, name: str) -> PublishedCurve | None:
        """The curve of a metric, as far as no run has failed.

        None where fewer than two epochs were published.
        """
        by_epoch: dict[float, list[float]] = {}
        deviation: dict[float, float] = {}
        for run in self.runs:
            for epoch, value in zip(*run.curve(split, name), strict=True):
                by_epoch.setdefault(epoch, []).append(value)
            deviation.update(zip(*run.curve(split, f"{name}_std"), strict=True))
        ends = [max(run.curve(split, name)[0], default=0.0) for run in self.failed]
        epochs = [e for e in sorted(by_epoch) if np.isfinite(by_epoch[e]).all()]
        epochs = [e for e in epochs if e <= min(ends, default=math.inf)]
        if len(epochs) < 2:
            return None
        mean = np.array([np.mean(by_epoch[e]) for e in epochs])
        if len(self.runs) > 1:
            low = np.array([min(by_epoch[e]) for e in epochs])
            high = np.array([max(by_epoch[e]) for e in epochs])
        else:
            half = np.array([deviation.get(e, math.nan) for e in epochs])
            low, high = mean - half, mean + half
        return PublishedCurve(np.array(epochs), mean, low, high)


def published_settings(runs: Sequence[Run], problem: str) -> list[PublishedSetting]:
    """Settings of one problem among imported runs, in their order."""
    groups: dict[tuple[str, str, str, int], list[Run]] = {}
    for run in runs:
        trial = run.trial
        if trial.problem == problem and run.imported is not None:
            shape = canonical_json([trial.batch_size, trial.schedule, dict(trial.hyperparameters)])
            key = (run.imported, trial.optimizer, shape, trial.epochs)
            groups.setdefault(key, []).append(run)
    return [
        PublishedSetting(
            source=source,
            optimizer=optimizer,
            hyperparameters=dict(found[0].trial.hyperparameters),
            epochs=epochs,
            runs=tuple(found),
        )
        for (source, optimizer, _, epochs), found in groups.items()
    ]
