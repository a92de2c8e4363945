"""One optimizer on one problem, from a script or the command line."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from optiscope import problems
from optiscope.monitor.instrument import Instrument
from optiscope.optim import registry
from optiscope.optim.registry import BadSettingsError
from optiscope.optim.spec import OptimizerSpec
from optiscope.problems import Problem
from optiscope.records import Recipe, Run, RunStore, Status, StoreError, Trial
from optiscope.records.kept_weights import Keep, KeepError
from optiscope.study.source_digest import in_a_file, source_digest
from optiscope.study.work import usable
from optiscope.train import Progress, run_trial
from optiscope.train.checkpoint import Checkpoint
from optiscope.train.device import flushes_denormals
from optiscope.train.isolation import isolated
from optiscope.train.recipe import check_recipe
from optiscope.train.schedule import anneals_twice
from optiscope.train.weights import WeightKeeper

__all__ = ["RunInterrupted", "RunNotStored", "run"]


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
    initialization: Mapping[str, Any] | None = None,
    max_seconds: float | None = None,
    device: str = "cpu",
    threads: int | None = None,
    autocast: str | None = None,
    compile: bool | None = None,
    accumulate: int | None = None,
    data_dir: Path | str | None = None,
    out: Path | str | None = None,
    retry_crashed: bool = False,
    notify: Callable[[str], None] = lambda message: None,
    progress: Progress | None = None,
    instruments: Sequence[Instrument] = (),
    keep_weights: str | int | Iterable[int] | None = None,
    initialisation: Mapping[str, Any] | None = None,
) -> Run:
    """Train one problem with one optimizer and return the run, whatever its outcome.

    Ctrl-C goes on to the caller, so that it ends a loop over runs.

    Args:
        problem: a name, an import path, or a problem. The record goes by its name: give one that
            differs from a shipped problem a name of its own before keeping its runs beside others.
        optimizer: a name, an import path, a class of optimizers, or a spec.
        hyperparameters: passed to the optimizer, such as ``{"lr": 0.1}``.
        seed: of weights, data order, and augmentation and dropout.
        epochs: horizon; the problem's own unless given.
        batch_size: samples a step; the problem's own unless given.
        schedule: such as ``{"name": "linear_decay"}``; see ``optiscope.train.schedule``.
        clip: ``{"norm": c}`` or ``{"value": c}``.
        early_stopping: such as ``{"metric": "valid_loss", "patience": 5}``.
        initialization: such as ``{"name": "he_normal"}``; the problem's own unless given, see
            ``optiscope.problems.initialisation``.
        max_seconds: wall time after which the run stops.
        device: where to train.
        threads: torch's threads; by default as many as torch uses now.
        autocast: ``"bfloat16"`` or ``"float16"``: mixed precision in training.
        compile: whether the model is compiled for training.
        accumulate: parts in which the gradient of each batch is computed, to save memory.
        data_dir: where the data sets are.
        out: folder for the record. A trial that is recorded there already is not run again: its
            run is returned. Problem and optimizer must then be such that an edited one is told from
            the recorded one: names, import paths, classes in a file, specs with a version.
        retry_crashed: set the record of a run that crashed aside, and run its trial again.
        notify: told, in a line, what is not as asked: a record that is kept or damaged, a schedule
            on top of an optimizer's own.
        progress: its errors go on to the caller; called after each evaluation.
        instruments: watch the run; what they measure is in its metrics, under their names.
        keep_weights: epochs at which the model's state is kept in the record's folder, as
            ``weights/epoch_<n>.safetensors``: numbers (0 is before the first step), ``"all"`` or
            ``"last"``. It is no part of the trial, and needs ``out``.
        initialisation: old name of ``initialization``.

    Raises:
        UnknownProblemError, UnknownOptimizerError: nothing of that name.
        BadSettingsError: a setting that cannot be, or ``out`` with what cannot be told apart.
        MissingData: the data set is missing.
        KeepError: epochs that there are not, or weights without a folder for them.
        StoreError: ``out`` cannot be written or read; after training a ``RunNotStored``, which has
            the run.
        RunInterrupted: Ctrl-C, a ``KeyboardInterrupt`` with the run so far, stored or not.
    """
    if initialisation is not None:
        if initialization is not None:
            raise BadSettingsError("initialisation is now called initialization: keep one")
        warnings.warn(
            "initialisation is now called initialization", DeprecationWarning, stacklevel=2
        )
        initialization = initialisation
    keep = None if keep_weights is None else Keep.of(keep_weights)
    if keep is not None and out is None:
        raise KeepError("expected out, a folder for the weights to keep, got none: name one")
    with isolated(imports=True):
        found = problems.get(problem) if isinstance(problem, str) else problem
    settings = dict(hyperparameters or {})
    if isinstance(optimizer, OptimizerSpec) and not registry.is_shipped(optimizer):
        settings = {**optimizer.defaults, **settings}  # a record must hold what it depends on
    with isolated(imports=True):
        bound = registry.bind(optimizer, settings)
    if keep is not None and (epochs is None or isinstance(epochs, int)):
        keep.check(found.epochs if epochs is None else epochs)
    store = None
    if out is not None:
        _require_identity(problem, found, optimizer, bound.spec)
        store = RunStore(out)
        store.check_writable()
    with registry.refusing():
        _check_numbers(seed, epochs, batch_size)
        recipe = Recipe(
            schedule,
            clip,
            early_stopping,
            initialization,
            None,
            max_seconds,
            device,
            torch.get_num_threads() if threads is None else threads,
            autocast,
            compile or None,
            None if accumulate == 1 and accumulate is not True else accumulate,
        )
        check_recipe(recipe, found, bound.on_probe)
        if schedule is not None and bound.spec.horizon is not None:
            notify(anneals_twice(bound.spec.name, schedule, "leave the schedule out"))
        trial = Trial(
            problem=found.name if not isinstance(problem, str) else problem,
            problem_version=found.version,
            optimizer=optimizer if isinstance(optimizer, str) else bound.spec.name,
            hyperparameters=dict(bound.hyperparameters),
            seed=seed,
            epochs=epochs or found.epochs,
            batch_size=batch_size or found.batch_size,
            **recipe.to_trial(),
            optimizer_version=bound.spec.version,
            optimizer_code=_code_of(optimizer, bound.spec),
            problem_code=source_digest(problem) if isinstance(problem, str) else None,
        )
        if store is not None:
            kept = _recorded(store, trial, retry_crashed, notify)
            if kept is not None:
                if keep is not None and not store.keeps_weights(trial.hash):
                    notify("its record keeps no weights: name another out to train it with them")
                return kept
        checkpoint = None if store is None else Checkpoint.of(store.root, trial.hash, notify)
        weights = None
        if store is not None:
            weights = WeightKeeper.of(store.root, trial, keep, notify)
        done = run_trial(
            trial,
            found,
            bound,
            data_dir=Path(data_dir) if data_dir is not None else None,
            progress=progress,
            instruments=instruments,
            checkpoint=checkpoint,
            weights=weights,
        )
    if "data" in done.environment:
        notify(done.environment["data"])
    try:
        if store is not None:
            going_on = done.status is Status.INTERRUPTED
            folder = None if weights is None or going_on else weights.folder
            store.write(done, folder, _found_by(instruments))
            if checkpoint is not None and not going_on:
                checkpoint.remove()
            if weights is not None and not going_on:
                weights.remove()
    except StoreError as error:
        if done.status is Status.INTERRUPTED:
            raise RunInterrupted(done) from error
        raise RunNotStored(error, done) from error
    if done.status is Status.INTERRUPTED:
        raise RunInterrupted(done)
    return done


def _code_of(optimizer: object, spec: OptimizerSpec) -> str | None:
    """Digest of an optimizer's code where it has no version and is at an import path."""
    if spec.version is not None or isinstance(optimizer, OptimizerSpec):
        return None
    if isinstance(optimizer, str):
        return source_digest(optimizer)
    return source_digest(spec.name) if in_a_file(spec.name) else None


def _require_identity(
    problem: str | Problem, found: Problem, optimizer: object, spec: OptimizerSpec
) -> None:
    """Raise BadSettingsError where a record could be taken for one of something else."""
    if isinstance(optimizer, OptimizerSpec):
        known = spec.version is not None and spec.name not in registry.names()
        what = "an OptimizerSpec with a version and a name of its own, or its import path"
    else:
        known = isinstance(optimizer, str) or in_a_file(spec.name)
        what = "an optimizer whose class is in a file, or its import path"
    if not (known or registry.is_shipped(spec)):
        raise BadSettingsError(f"out= expects {what}, got {spec.name}: an edited one must show")
    shipped = found.name in problems.names() and problems.get(found.name) is found
    if not (isinstance(problem, str) or shipped):
        raise BadSettingsError(
            f"out= expects a problem by its name or import path, got the object {found.name}: an "
            "edited one must show"
        )


def _found_by(instruments: Sequence[Instrument]) -> list[dict[str, Any]] | None:
    """Findings of the watch among the instruments, None without one."""
    for instrument in instruments:
        found = getattr(instrument, "found", None)
        if callable(found):
            findings: list[dict[str, Any]] | None = found()
            return findings
    return None


def _recorded(
    store: RunStore, trial: Trial, retry_crashed: bool, notify: Callable[[str], None]
) -> Run | None:
    """The run of a trial that need not run again."""
    found = usable(store, trial, notify, flush_denormal=flushes_denormals())
    if found is None:
        return None
    crashed = found.status is Status.CRASHED
    if crashed and retry_crashed:
        aside = store.set_aside(trial.hash, even_good=True)
        notify(f"the run that crashed: moved to {aside}, the trial runs again")
        return None
    more = " (retry_crashed runs it again)" if crashed else ""
    notify(f"recorded before, begun {found.started}: not run again{more}")
    return found


def _check_numbers(seed: int, epochs: int | None, batch_size: int | None) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    for name, count in (("epochs", epochs), ("batch_size", batch_size)):
        if count is None:
            continue
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a positive integer, got {count!r}")
