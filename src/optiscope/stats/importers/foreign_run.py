"""A run that somebody else made: what is known of it, and words for what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optiscope.errors import OptiscopeError
from optiscope.records import Measurement, Run, Status, Trial, summarise

__all__ = ["FOREIGN_VERSION", "SEVERAL_SEEDS", "UNKNOWN_STEP", "ImportFormatError", "foreign_run"]

FOREIGN_VERSION = 0
"""Problem version of every imported run: its splits and preprocessing are not those of ours."""

SEVERAL_SEEDS = -1
"""Seed of a record that holds means over runs with several seeds, or whose seed is not known."""

UNKNOWN_STEP = -1
"""Number of steps where only epochs are known."""


class ImportFormatError(OptiscopeError, ValueError):
    """A file that is not of the layout to import, in one line with the file's name."""


def foreign_run(
    *,
    source: str,
    problem: str,
    optimizer: str,
    hyperparameters: Mapping[str, Any],
    seed: int,
    epochs: int,
    batch_size: int,
    metrics: Sequence[Measurement],
    status: Status = Status.FINISHED,
    reason: str = "",
    schedule: Mapping[str, Any] | None = None,
    best: Mapping[str, float] | None = None,
    environment: Mapping[str, Any] | None = None,
    started: str = "",
) -> Run:
    """A record marked ``imported`` from ``source``, without times and counts.

    Args:
        source: where the run came from, in words; kept in ``Run.imported``.
        problem: name that the source gives it.
        optimizer: name that the source gives it.
        hyperparameters: everything the source states.
        seed: the run's, or :data:`SEVERAL_SEEDS`.
        epochs: horizon.
        batch_size: samples per step.
        metrics: measurements; steps may be :data:`UNKNOWN_STEP`. Names that end in ``_std`` are
            spreads: they enter neither final nor best values.
        status: how it ended.
        reason: the same in words; says that it was imported by default.
        schedule: as the source states it.
        best: best values per ``split_name``; by default the best of ``metrics``.
        environment: what the source says about where it ran.
        started: UTC time in ISO 8601, empty where it is not known.
    """
    final, best_measured = summarise([m for m in metrics if not m.name.endswith("_std")])
    return Run(
        trial=Trial(
            problem=problem,
            problem_version=FOREIGN_VERSION,
            optimizer=optimizer,
            hyperparameters=dict(hyperparameters),
            seed=seed,
            epochs=epochs,
            batch_size=batch_size,
            schedule=schedule,
        ),
        status=status,
        reason=reason or f"imported from {source}",
        steps=max((m.step for m in metrics), default=UNKNOWN_STEP),
        seconds={},
        counts={},
        peak_memory_bytes=None,
        environment=dict(environment or {}),
        started=started,
        metrics=tuple(metrics),
        final=final,
        best=best_measured if best is None else dict(best),
        imported=source,
    )
