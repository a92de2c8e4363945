"""What happened when a trial was executed: one record, whatever the outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from optiscope.records.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRUNED_BY", "Measurement", "Run", "Seconds", "Status", "higher_is_better"]

PRUNED_BY = "pruned by"
"""How the reason of a run begins that a tuning's pruner ended."""


class Status(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    INTERRUPTED = "interrupted"

    @property
    def complete(self) -> bool:
        """Whether the run reached an end of its own: its final values may be compared."""
        return self in (Status.FINISHED, Status.STOPPED)


class Measurement(NamedTuple):
    """One row of a run's metrics in long form."""

    step: int
    epoch: float
    split: str
    name: str
    value: float


class Seconds(NamedTuple):
    """Time spent in one phase: wall clock, and CPU summed over threads."""

    wall: float
    cpu: float


@dataclass(frozen=True, repr=False)
class Run:
    """The record of one trial.

    Attributes:
        trial: what was asked.
        status: how it ended.
        reason: the same in words, with the step where it matters.
        steps: optimizer steps taken.
        seconds: per phase: data, forward_backward, optimizer, instruments, evaluation.
        counts: gradient_evaluations and hessian_products.
        peak_memory_bytes: largest resident memory of the process (CPU) or allocation (GPU).
        environment: versions, hardware, threads, determinism flags, commit.
        started: UTC time, ISO 8601.
        metrics: every measurement; empty when the record was read without them.
        final: last value of each ``split_name``, for summaries that need no curve.
        best: per ``split_name``, lowest loss or highest other metric, over all epochs.
        imported: where the record came from if it was not run here, else None.
    """

    trial: Trial
    status: Status
    reason: str
    steps: int
    seconds: Mapping[str, Seconds]
    counts: Mapping[str, int]
    peak_memory_bytes: int | None
    environment: Mapping[str, Any]
    started: str
    metrics: Sequence[Measurement] = field(default=(), repr=False)
    final: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    imported: str | None = None

    @classmethod
    def unstarted(
        cls, trial: Trial, status: Status, reason: str, environment: Mapping[str, Any] | None = None
    ) -> Run:
        """The record of a trial that left nothing that could be measured."""
        return cls(
            trial=trial,
            status=status,
            reason=reason,
            steps=0,
            seconds={},
            counts={"gradient_evaluations": 0, "hessian_products": 0},
            peak_memory_bytes=None,
            environment=environment or {},
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @property
    def training_seconds(self) -> Seconds:
        """Time in training: every phase but instruments and evaluation."""
        phases = ("data", "forward_backward", "optimizer")
        spent = [self.seconds[p] for p in phases if p in self.seconds]
        return Seconds(sum(s.wall for s in spent), sum(s.cpu for s in spent))

    @property
    def pruned(self) -> bool:
        """Whether a tuning ended the run because it fell behind earlier ones.

        One that early stopping ended is not: it has its outcome.
        """
        return self.status is Status.STOPPED and self.reason.startswith(PRUNED_BY)

    def curve(self, split: str, name: str) -> tuple[list[float], list[float]]:
        """Epochs and values of one metric, in order of measurement."""
        rows = [m for m in self.metrics if m.split == split and m.name == name]
        return [m.epoch for m in rows], [m.value for m in rows]

    def frame(self) -> pd.DataFrame:
        """The curves as a data frame: one row per measured epoch and step, a column per figure.

        Columns are named ``split_name``. A metric that was not measured there is NaN. A run that
        was read without its curves has no rows.
        """
        import pandas as pd

        rows: dict[tuple[float, int], dict[str, float]] = {}
        for m in self.metrics:
            rows.setdefault((m.epoch, m.step), {})[f"{m.split}_{m.name}"] = m.value
        values = [{"epoch": e, "step": s, **row} for (e, s), row in sorted(rows.items())]
        return pd.DataFrame(values, columns=None if values else ["epoch", "step"])

    def __repr__(self) -> str:
        """One line: what was trained, how it ended, and the final values of the test split."""
        trial = self.trial
        final = ", ".join(f"{k}={v:.4g}" for k, v in self.final.items() if k.startswith("test_"))
        words = [f"{trial.optimizer} on {trial.problem}", f"seed {trial.seed}", str(self.status)]
        return f"<Run {', '.join(words)}{': ' + final if final else ''}>"

    def _repr_html_(self) -> str:
        """Final and best values as a table, for notebooks."""
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{value:.4g}</td>"
            f"<td>{self.best.get(name, math.nan):.4g}</td></tr>"
            for name, value in self.final.items()
        )
        head = "<tr><th></th><th>final</th><th>best</th></tr>"
        return f"<p>{escape(repr(self)[1:-1])}</p><table>{head}{rows}</table>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as stored in ``run.json`` (without the metrics)."""
        return {
            "trial": self.trial.to_dict(),
            "trial_hash": self.trial.hash,
            "status": str(self.status),
            "reason": self.reason,
            "steps": self.steps,
            "started": self.started,
            "seconds": {phase: s._asdict() for phase, s in self.seconds.items()},
            "counts": dict(self.counts),
            "peak_memory_bytes": self.peak_memory_bytes,
            "final": {key: _writable(value) for key, value in self.final.items()},
            "best": {key: _writable(value) for key, value in self.best.items()},
            "environment": dict(self.environment),
            "imported": self.imported,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], metrics: Sequence[Measurement] = ()) -> Run:
        """Inverse of :meth:`to_dict`; raises KeyError, TypeError or ValueError on bad values."""
        return cls(
            trial=Trial.from_dict(values["trial"]),
            status=Status(values["status"]),
            reason=values["reason"],
            steps=values["steps"],
            started=values["started"],
            seconds={phase: Seconds(**s) for phase, s in values["seconds"].items()},
            counts=values["counts"],
            peak_memory_bytes=values["peak_memory_bytes"],
            final={key: _readable(value) for key, value in values["final"].items()},
            best={key: _readable(value) for key, value in values["best"].items()},
            environment=values["environment"],
            imported=values.get("imported"),
            metrics=metrics,
        )


FALLING = ("loss", "error", "mae", "mse", "perplexity")
"""Ends of the names of figures that should fall; all others should rise."""


def higher_is_better(metric: str) -> bool:
    """Whether a larger value is better: False for what ends in a word of ``FALLING``."""
    return not metric.endswith(FALLING)


def summarise(metrics: Sequence[Measurement]) -> tuple[dict[str, float], dict[str, float]]:
    """Final and best value of each ``split_name``; only finite values can be best.

    Final is what was measured last in time, by epoch and step, whatever the order of the rows.
    """
    final: dict[str, float] = {}
    best: dict[str, float] = {}
    latest: dict[str, tuple[float, int]] = {}
    for row in metrics:
        key = f"{row.split}_{row.name}"
        if (row.epoch, row.step) >= latest.get(key, (-math.inf, -1)):
            latest[key] = row.epoch, row.step
            final[key] = row.value
        if math.isfinite(row.value):
            better = max if higher_is_better(row.name) else min
            best[key] = better(best.get(key, row.value), row.value)
    return final, best


def _writable(value: float) -> float | str:
    """JSON has no infinity and no NaN: they are kept as words."""
    return value if math.isfinite(value) else str(value)


def _readable(value: float | str) -> float:
    return float(value)
