"""What a worker does: train trials of one problem and record their runs."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from optiscope.executors.apart import children_allowed, run_apart
from optiscope.monitor.instrument import Instrument, StartView
from optiscope.records import DamagedRecord, Run, RunStore, Status, Trial
from optiscope.records.findings import Monitoring
from optiscope.records.kept_weights import Keep

if TYPE_CHECKING:
    from optiscope.problems import Problem
    from optiscope.train.loop import OptimizerFactory

__all__ = ["MOST_TOGETHER", "batches_of", "record_trials", "sweep_states", "usable"]

KILL_AFTER_SECONDS = 15.0  # that a step hangs in code that no exception can reach


def usable(
    store: RunStore,
    trial: Trial,
    say: Callable[[str], None],
    *,
    metrics: bool = True,
    flush_denormal: bool = True,
) -> Run | None:
    """The recorded run of a trial that need not be trained again.

    One that is damaged or was made with other arithmetic is set aside, which ``say`` is told of in
    a line. ``flush_denormal`` is whether who would train counts denormal numbers as zero, as
    workers do.
    """
    from optiscope.train.isolation import unlike_arithmetic

    run = store.outcome(trial.hash, say, metrics=metrics)
    if run is None or run.imported is not None:
        return run
    unlike = unlike_arithmetic(run.environment, flush_denormal=flush_denormal)
    if unlike is None:
        return run
    aside = store.set_aside(trial.hash, even_good=True)
    say(f"the run of {trial.hash} was {unlike}: moved to {aside}, the trial runs again")
    return None


MOST_TOGETHER = 8
"""Trials of one batch: enough to keep a GPU busy with a small network."""


def batches_of(trials: Iterable[Trial], most: int = MOST_TOGETHER) -> list[list[Trial]]:
    """Lists in which trials are trained: ``together`` with others alike, the rest one by one."""
    batches: list[list[Trial]] = []
    growing: dict[str, list[Trial]] = {}
    for trial in trials:
        batch = growing.get(trial.likeness) if trial.together else None
        if batch is None or len(batch) >= most:
            batch = []
            batches.append(batch)
            if trial.together:
                growing[trial.likeness] = batch
        batch.append(trial)
    return batches


def record_trials(
    trials: Sequence[Trial],
    store: Path,
    data_dir: Path | None,
    keep: Keep | None = None,
    monitor: Monitoring | None = None,
) -> None:
    """Run trials of one problem and store each record as soon as it is there.

    ``keep`` says whose weights are kept beside the record, ``monitor`` how the runs are watched;
    neither changes a record.

    A trial that is already recorded is not run again. A run that was interrupted leaves no
    record: it has not said anything about its algorithm. In a worker of our own pool each trial,
    or batch of trials that train together, has a process to itself.

    Raises:
        MissingData: the data set is missing.
        StoreError: the store cannot be written.
        ChildDied: a trial's own process ended without a word.
        ChildHung: a trial's own process had to be killed when its time was up.
    """
    # Imported here so that a parent that only plans and waits does not need torch's memory.
    from optiscope.train.device import prepare_process
    from optiscope.train.loop import patience

    prepare_process()
    if not children_allowed():
        _record(trials, store, data_dir, keep, monitor)
        return
    _warm_up()
    for batch in batches_of(trials):
        limit = patience(batch[0])
        run_apart(
            partial(_record, batch, store, data_dir, keep, monitor),
            seconds=None if limit is None else limit + KILL_AFTER_SECONDS,
        )


def sweep_states(store: RunStore) -> None:
    """Remove states and weights of trials that are recorded: their processes were killed since."""
    recorded = set(store.hashes())
    for path in (store.root / ".checkpoints").glob("*"):
        if path.name.strip(".").partition(".")[0] in recorded:  # or a draft of it
            path.unlink(missing_ok=True)
    for folder in (store.root / ".weights").glob("*"):
        if folder.name in recorded:
            shutil.rmtree(folder, ignore_errors=True)


@cache
def _warm_up() -> None:
    """Do once, before any child is forked, what each of them would do again: half a second.

    No tensor is computed and no device touched, so that children stay safe to fork.
    """
    import torch._dynamo  # noqa: F401 - which any optimizer of torch's imports when it is made

    from optiscope import problems  # noqa: F401
    from optiscope.optim import registry  # noqa: F401
    from optiscope.records.record_file import metrics_table
    from optiscope.train.environment import learn_surroundings

    metrics_table([])  # pyarrow imports pandas when it first sees a list
    learn_surroundings()


def _record(
    trials: Sequence[Trial],
    store: Path,
    data_dir: Path | None,
    keep: Keep | None = None,
    monitor: Monitoring | None = None,
    begun: Callable[[], None] | None = None,
) -> None:
    import torch

    from optiscope import problems
    from optiscope.optim import registry
    from optiscope.train import run_trial
    from optiscope.train.checkpoint import Checkpoint
    from optiscope.train.isolation import isolated
    from optiscope.train.loop import check_device, load_splits
    from optiscope.train.weights import WeightKeeper

    runs = RunStore(store)
    recorded = {trial.hash: runs.read(trial.hash, metrics=False) for trial in trials}
    missing = [trial for trial in trials if not _said_something(recorded[trial.hash])]
    if not missing:
        return
    with isolated(imports=True):
        problem = problems.get(missing[0].problem)
        factories = [registry.bind(t.optimizer, t.hyperparameters) for t in missing]
    if missing[0].together:
        _record_batch(missing, runs, problem, factories, data_dir, keep, begun)
        return
    beginning = [] if begun is None else [_Beginning(begun)]
    if begun is not None and isinstance(problem.data, Hashable):
        device = torch.device(missing[0].device)
        check_device(device)
        load_splits(problem.data, data_dir, device)  # for run_trial, which has them then
        begun()
    for trial, factory in zip(missing, factories, strict=True):
        watch = None
        if monitor is not None:
            with isolated(imports=True):
                from optiscope.integrations.training_loop import WatchInstrument
            watch = WatchInstrument(strict=False, **monitor.options())
        watching = beginning if watch is None else [*beginning, watch]
        checkpoint = Checkpoint.of(store, trial.hash, _warn)
        weights = WeightKeeper.of(store, trial, keep, _warn)
        run = run_trial(
            trial,
            problem,
            factory,
            data_dir=data_dir,
            instruments=watching,
            checkpoint=checkpoint,
            weights=weights,
        )
        if run.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        findings = None if watch is None else watch.found()
        runs.write(run, None if weights is None else weights.folder, findings)
        checkpoint.remove()
        if weights is not None:
            weights.remove()


def _record_batch(
    trials: Sequence[Trial],
    runs: RunStore,
    problem: Problem,
    factories: Sequence[OptimizerFactory],
    data_dir: Path | None,
    keep: Keep | None,
    begun: Callable[[], None] | None,
) -> None:
    """Train trials in one batch and store their records."""
    from optiscope.train.together import run_together
    from optiscope.train.weights import WeightKeeper

    if begun is not None:
        begun()
    keepers = [WeightKeeper.of(runs.root, trial, keep, _warn) for trial in trials]
    trained = run_together(trials, problem, factories, data_dir=data_dir, weights=keepers)
    for run, keeper in zip(trained, keepers, strict=True):
        runs.write(run, None if keeper is None else keeper.folder)
        if keeper is not None:
            keeper.remove()


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


class _Beginning(Instrument):
    """Tells when a trial's time begins."""

    def __init__(self, begun: Callable[[], None]) -> None:
        self._begun = begun

    def on_start(self, view: StartView) -> None:
        """The model and the data are there."""
        self._begun()


def _said_something(found: Run | DamagedRecord | None) -> bool:
    """Whether there is a record; a damaged one is the parent's to set aside."""
    return found is not None and not (isinstance(found, Run) and found.status is Status.INTERRUPTED)
