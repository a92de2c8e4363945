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
from optiscope.records import Run, RunStore, Status, StoreError, Trial
from optiscope.study.source_digest import source_digest
from optiscope.train import Progress, run_trial
from optiscope.train.clipping import check_clip
from optiscope.train.early_stopping import EarlyStopping
from optiscope.train.evaluation import check_watched
from optiscope.train.schedule import check_schedule

__all__ = ["RunInterrupted", "RunNotStored", "run"]

MOST_THREADS = 1024
"""More make torch fail without words."""


class RunNotStored(StoreError):
    """A run whose record could not be written.

    Attributes:
        run: what was measured.
    """

    def __init__(self, error: StoreError, run: Run) -> None:
        super().__init__(str(error))
        self.run = run


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C during a run.

    Attributes:
        run: what had been measured by then.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(run.reason)
        self.run = run


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
    out: Path | str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train one problem with one optimizer and return the run, whatever its outcome.

    Ctrl-C goes on to the caller, so that it ends a loop over runs.

    Args:
        problem: a name, an import path, or a problem. The record goes by its name: give one that
            differs from a shipped problem a name of its own before keeping its runs beside others.
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
        out: folder for the record. A trial that is recorded there already is not run again: its
            run is returned.
        progress: its errors go on to the caller; called after each evaluation.

    Raises:
        UnknownProblemError, UnknownOptimizerError: nothing of that name.
        BadSettingsError: a setting that cannot be.
        MissingData: the data set is not at hand.
        StoreError: ``out`` cannot be written or read; after training a ``RunNotStored``, which has
            the run.
        RunInterrupted: Ctrl-C, a ``KeyboardInterrupt`` with the run so far.
    """
    store = None if out is None else RunStore(out)
    if store is not None:
        store.check_writable()
    found = problems.get(problem) if isinstance(problem, str) else problem
    settings = dict(hyperparameters or {})
    if isinstance(optimizer, OptimizerSpec) and not registry.is_shipped(optimizer):
        settings = {**optimizer.defaults, **settings}  # a record must hold what it depends on
    bound = registry.bind(optimizer, settings)
    with registry.refusing():
        _check_numbers(seed, epochs, batch_size, threads, max_seconds)
        _check_kinds(schedule, clip, early_stopping, initialisation, device)
        EarlyStopping.of(early_stopping)
        check_watched(early_stopping, schedule, found)
        if clip is not None:
            check_clip(clip)
        if schedule is not None:
            check_schedule(schedule, bound.on_probe())
        trial = Trial(
            problem=found.name if not isinstance(problem, str) else problem,
            problem_version=found.version,
            optimizer=optimizer if isinstance(optimizer, str) else bound.spec.name,
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
            optimizer_code=source_digest(optimizer)
            if isinstance(optimizer, str) and bound.spec.version is None
            else None,
            problem_code=source_digest(problem) if isinstance(problem, str) else None,
        )
        kept = None if store is None else store.read(trial.hash)
        if isinstance(kept, Run) and kept.status is not Status.INTERRUPTED:
            return kept
        done = run_trial(
            trial,
            found,
            bound,
            data_dir=Path(data_dir) if data_dir is not None else None,
            progress=progress,
        )
    if store is not None:
        try:
            store.write(done)
        except StoreError as error:
            raise RunNotStored(error, done) from error
    if done.status is Status.INTERRUPTED:
        raise RunInterrupted(done)
    return done


def _check_numbers(
    seed: int,
    epochs: int | None,
    batch_size: int | None,
    threads: int | None,
    max_seconds: float | None,
) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    for name, count in (("epochs", epochs), ("batch_size", batch_size), ("threads", threads)):
        if count is None:
            continue
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a positive integer, got {count!r}")
    if threads is not None and threads > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, got {threads}")
    if max_seconds is not None and not 0 < max_seconds < math.inf:
        raise ValueError(f"max_seconds must be positive and finite, got {max_seconds}")


def _check_kinds(
    schedule: object, clip: object, early_stopping: object, initialisation: object, device: object
) -> None:
    for name, table, example in (
        ("schedule", schedule, {"name": "linear_decay"}),
        ("clip", clip, {"norm": 1.0}),
        ("early_stopping", early_stopping, {"metric": "valid_loss", "patience": 5}),
        ("initialisation", initialisation, {"name": "he_normal"}),
    ):
        if table is not None and not isinstance(table, Mapping):
            raise ValueError(f"{name} must be a table such as {example}, got {table!r}")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', got {device!r}")
