"""One optimizer on one problem, from a script or the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from optiscope import problems
from optiscope.optim import registry
from optiscope.optim.spec import OptimizerSpec
from optiscope.problems import Problem
from optiscope.records import Run, Trial
from optiscope.train import Progress, run_trial
from optiscope.train.clipping import check_clip
from optiscope.train.early_stopping import EarlyStopping
from optiscope.train.evaluation import check_watched
from optiscope.train.schedule import check_schedule

__all__ = ["run"]


def run(
    problem: str | Problem,
    optimizer: str | type[Optimizer] | OptimizerSpec,
    *,
    hyperparameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    epochs: int | None = None,
    batch_size: int | None = None,
    schedule: Mapping[str, Any] | None = None,
    clip: Mapping[str, float] | None = None,
    early_stopping: Mapping[str, Any] | None = None,
    initialisation: Mapping[str, Any] | None = None,
    max_seconds: float | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    data_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train one problem with one optimizer and return the run, whatever its outcome.

    Args:
        problem: a name, an import path, or a problem.
        optimizer: a name, an import path, a class of optimizers, or a spec.
        hyperparameters: passed to the optimizer, such as ``{"lr": 0.1}``.
        seed: of weights, data order, and augmentation and dropout.
        epochs, batch_size: the problem's own unless given.
        schedule: such as ``{"name": "linear_decay"}``; see ``optiscope.train.schedule``.
        clip: ``{"norm": c}`` or ``{"value": c}``.
        early_stopping: such as ``{"metric": "valid_loss", "patience": 5}``.
        initialisation: such as ``{"name": "he_normal"}``; the problem's own unless given, see
            ``optiscope.problems.initialisation``.
        max_seconds: wall time after which the run stops.
        device: where to train.
        threads: torch's threads; by default as many as torch uses now.
        data_dir: where the data sets are.
        progress: called after each evaluation.

    Raises:
        UnknownProblemError, UnknownOptimizerError: nothing of that name.
        BadSettingsError: a setting that cannot be.
        MissingData: the data set is not at hand.
    """
    found = problems.get(problem) if isinstance(problem, str) else problem
    bound = registry.bind(optimizer, hyperparameters or {})
    with registry.refusing():
        _check_numbers(seed, epochs, batch_size, max_seconds)
        EarlyStopping.of(early_stopping)
        check_watched(early_stopping, schedule, found)
        if clip is not None:
            check_clip(clip)
        if schedule is not None:
            check_schedule(schedule, bound.on_probe())
        trial = Trial(
            problem=found.name if not isinstance(problem, str) else problem,
            problem_version=found.version,
            optimizer=bound.spec.name,
            hyperparameters=dict(bound.hyperparameters),
            seed=seed,
            epochs=epochs or found.epochs,
            batch_size=batch_size or found.batch_size,
            schedule=schedule,
            clip=clip,
            early_stopping=early_stopping,
            initialisation=initialisation,
            max_seconds=max_seconds,
            device=device,
            threads=threads or torch.get_num_threads(),
            optimizer_version=bound.spec.version,
        )
        return run_trial(
            trial,
            found,
            bound,
            data_dir=Path(data_dir) if data_dir is not None else None,
            progress=progress,
        )


def _check_numbers(
    seed: int, epochs: int | None, batch_size: int | None, max_seconds: float | None
) -> None:
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    for name, value in (
        ("epochs", epochs),
        ("batch_size", batch_size),
        ("max_seconds", max_seconds),
    ):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
