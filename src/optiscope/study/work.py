"""What a worker does: train trials of one problem and record their runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optiscope.records import DamagedRecord, Run, RunStore, Status, Trial

__all__ = ["record_trials"]


def record_trials(trials: Sequence[Trial], store: Path, data_dir: Path | None) -> None:
    """Run trials of one problem and store each record as soon as it is there.

    A trial that is already recorded is not run again. A run that was interrupted leaves no
    record: it has not said anything about its algorithm.

    Raises:
        MissingData: the data set is not at hand.
        StoreError: the store cannot be written.
    """
    # Imported here so that a parent that only plans and waits does not need torch's memory.
    from optiscope import problems
    from optiscope.optim import registry
    from optiscope.train import run_trials
    from optiscope.train.device import prepare_process
    from optiscope.train.isolation import isolated

    prepare_process()
    runs = RunStore(store)
    kept = {trial.hash: runs.read(trial.hash, metrics=False) for trial in trials}
    missing = [trial for trial in trials if not _said_something(kept[trial.hash])]
    if not missing:
        return
    with isolated(imports=True):
        problem = problems.get(missing[0].problem)
        factories = [registry.bind(t.optimizer, t.hyperparameters) for t in missing]
    for run in run_trials(missing, problem, factories, data_dir=data_dir):
        if run.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        runs.write(run)


def _said_something(found: Run | DamagedRecord | None) -> bool:
    """Whether there is a record; a damaged one is the parent's to set aside."""
    return found is not None and not (isinstance(found, Run) and found.status is Status.INTERRUPTED)
