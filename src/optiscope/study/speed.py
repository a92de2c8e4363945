"""Seconds per epoch of each problem on this machine, measured once and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

from optiscope.atomic_file import write_json_atomically
from optiscope.data.folders import resolve_cache_dir

__all__ = ["kept_seconds_per_epoch", "measure_seconds_per_epoch"]

ENOUGH_SECONDS = 2.0
FEWEST_STEPS = 3


def kept_seconds_per_epoch() -> dict[str, float]:
    """Measurements made on this machine so far, by problem; empty where there are none."""
    try:
        content = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    kept: Mapping[str, Any] = content if isinstance(content, dict) else {}
    return {str(k): float(v) for k, v in kept.items() if isinstance(v, int | float)}


def measure_seconds_per_epoch(problem: str, data_dir: Path | None = None) -> float:
    """Wall seconds of one epoch of SGD training on all cores, from a few steps; it is kept.

    Raises:
        UnknownProblemError: nothing of that name.
        MissingData: the data set is missing.
    """
    import torch

    from optiscope import problems
    from optiscope.optim import registry
    from optiscope.records import Trial
    from optiscope.train.timing import time_interleaved

    found = problems.get(problem)
    bound = registry.bind("sgd", {"lr": 1e-6})
    trial = Trial(
        problem=problem,
        problem_version=found.version,
        optimizer="sgd",
        hyperparameters={"lr": 1e-6},
        seed=0,
        epochs=1000,
        batch_size=found.batch_size,
        threads=torch.get_num_threads(),
    )
    chunks = time_interleaved(
        [trial], found, [bound], repetitions=1000, steps=FEWEST_STEPS, data_dir=data_dir
    )
    begun, per_step = perf_counter(), []
    with closing(chunks):
        for chunk in chunks:
            per_step.append(chunk.total.wall / chunk.steps)
            if perf_counter() - begun > ENOUGH_SECONDS and len(per_step) > 1:
                break
    per_step.sort()
    steps = len(found.data(data_dir).train) // found.batch_size
    seconds = per_step[len(per_step) // 2] * steps
    _keep(problem, seconds)
    return seconds


def _file() -> Path:
    return resolve_cache_dir().parent / "seconds_per_epoch.json"


def _keep(problem: str, seconds: float) -> None:
    """Add a measurement; a cache that cannot be written is no reason to fail."""
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomically(path, kept_seconds_per_epoch() | {problem: seconds})
    except OSError:
        return
