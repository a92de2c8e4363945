"""What training with several optimizers costs, relative to the first of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from optiscope import problems
from optiscope.optim import registry
from optiscope.records import Trial
from optiscope.stats.relative_time import time_ratio
from optiscope.train.environment import environment
from optiscope.train.timing import TimedChunk, time_interleaved

__all__ = ["time_optimizers"]

RATES = {"sgd": 0.01, "momentum": 0.01, "nesterov": 0.01}
DEFAULT_RATE = 1e-3


def time_optimizers(
    problem: str,
    optimizers: Sequence[str],
    *,
    repetitions: int,
    steps: int | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    data_dir: Path | None = None,
    on_chunk: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Seconds per step of several optimizers, interleaved, as plain values.

    Every repetition trains each optimizer in turn, after one that warms up; evaluation is left
    out. Ratios to the first optimizer are paired by repetition. Learning rates are small and
    fixed: they do not change what a step costs.

    Args:
        problem: a name or import path.
        optimizers: names or import paths.
        repetitions: rounds after the warm-up.
        steps: in a repetition; by default an epoch.
        batch_size: the problem's own unless given.
        device: where to measure.
        threads: torch's threads; by default as many as torch uses now.
        data_dir: where the data sets are.
        on_chunk: called after each turn of an optimizer.

    Raises:
        UnknownProblemError, UnknownOptimizerError: nothing of that name.
        MissingData: the data set is missing.
    """
    found = problems.get(problem)
    bound = [registry.bind(name, _settings(name)) for name in optimizers]
    trials = [
        Trial(
            problem=problem,
            problem_version=found.version,
            optimizer=name,
            hyperparameters=dict(b.hyperparameters),
            seed=0,
            epochs=repetitions + 1,
            batch_size=batch_size or found.batch_size,
            device=device,
            threads=threads or torch.get_num_threads(),
        )
        for name, b in zip(optimizers, bound, strict=True)
    ]
    chunks = []
    for chunk in time_interleaved(
        trials, found, bound, repetitions=repetitions, steps=steps, data_dir=data_dir
    ):
        chunks.append(chunk)
        on_chunk()
    return {
        "problem": problem,
        "batch_size": trials[0].batch_size,
        "threads": trials[0].threads,
        "reference": optimizers[0],
        "repetitions": repetitions,
        "rows": [_row(name, i, chunks) for i, name in enumerate(optimizers)],
        "environment": environment(torch.device(device)),
    }


def _settings(name: str) -> dict[str, Any]:
    """A small learning rate for optimizers that have a rate and are tuned by it."""
    spec = registry.get(name)
    return {"lr": RATES.get(name, DEFAULT_RATE)} if "lr" in spec.space else {}


def _row(name: str, position: int, chunks: Sequence[TimedChunk]) -> dict[str, Any]:
    mine = [c for c in chunks if c.position == position]
    reference = [c for c in chunks if c.position == 0]
    phases = sorted({phase for c in mine for phase in c.seconds})
    steps = sum(c.steps for c in mine)
    wall = [c.total.wall for c in mine]
    cpu = [c.total.cpu for c in mine]
    return {
        "optimizer": name,
        "ratio": asdict(time_ratio(wall, [c.total.wall for c in reference])),
        "cpu_ratio": asdict(time_ratio(cpu, [c.total.cpu for c in reference])),
        "ratios": [a / b.total.wall for a, b in zip(wall, reference, strict=True)],
        "milliseconds_per_step": 1000 * median(c.total.wall / c.steps for c in mine),
        "cpu_milliseconds_per_step": 1000 * median(c.total.cpu / c.steps for c in mine),
        "seconds_per_epoch": median(c.total.wall / c.steps for c in mine) * mine[0].steps_per_epoch,
        "phases_milliseconds_per_step": {
            phase: 1000 * median(c.seconds[phase].wall / c.steps for c in mine) for phase in phases
        },
        "gradients_per_step": sum(c.gradient_evaluations for c in mine) / steps,
        "hessian_products_per_step": sum(c.hessian_products for c in mine) / steps,
    }
