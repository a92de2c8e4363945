"""A trial and a run with values in every field, for tests of the store."""

from __future__ import annotations

import math

from optiscope.records import Measurement, Run, Seconds, Status, Trial, summarise

METRICS = (
    Measurement(0, 0.0, "valid", "loss", 2.3),
    Measurement(0, 0.0, "valid", "accuracy", 0.1),
    Measurement(10, 1.0, "valid", "loss", 0.25),
    Measurement(10, 1.0, "valid", "accuracy", 0.9),
    Measurement(12, 1.2, "batch", "loss", math.nan),
)


def trial(**changes: object) -> Trial:
    values: dict[str, object] = {
        "problem": "digits_mlp",
        "problem_version": 1,
        "optimizer": "momentum",
        "hyperparameters": {"lr": 0.1, "momentum": 0.9},
        "seed": 3,
        "epochs": 2,
        "batch_size": 32,
        "schedule": {"name": "linear_decay", "final": 0.0},
        "clip": {"norm": 1.0},
        "early_stopping": {"metric": "valid_loss", "patience": 2},
        "max_seconds": 60.0,
        "threads": 2,
    }
    return Trial(**{**values, **changes})  # type: ignore[arg-type]


def run(of: Trial | None = None, *, status: Status = Status.DIVERGED, steps: int = 12) -> Run:
    final, best = summarise(METRICS)
    return Run(
        trial=of or trial(),
        status=status,
        reason="the loss of a training batch became nan at step 12",
        steps=steps,
        seconds={"data": Seconds(0.5, 0.25), "optimizer": Seconds(1.0, 2.0)},
        counts={"gradient_evaluations": 12, "hessian_products": 0},
        peak_memory_bytes=123_456_789,
        environment={"torch": "2.13.0", "cuda": None, "cores": 2},
        started="2026-01-02T03:04:05+00:00",
        metrics=METRICS,
        final=final,
        best=best,
    )
