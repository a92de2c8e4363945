"""A short form of the committed fidelity records: the same trials give the same first epochs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from optiscope import problems
from optiscope.optim import registry
from optiscope.records import Run, StudyFolder
from optiscope.train import run_trial

RECORDS = Path(__file__).parents[2] / "benchmarks" / "records"
EPOCHS = 3
TOLERANCE = 0.005  # accuracy: other processors round otherwise


def reporting_runs(study: str) -> list[Run]:
    folder = StudyFolder(RECORDS / study)
    runs = [folder.store.read(entry.trial_hash) for entry in folder.ledger()]
    assert runs
    assert all(isinstance(run, Run) for run in runs), runs
    return [run for run in runs if isinstance(run, Run)]


@pytest.mark.parametrize(
    ("study", "algorithms", "seeds"),
    [("fidelity_mnist_logreg", 3, 3), ("fidelity_fmnist_2c2d", 1, 3)],
)
def test_committed_records_are_whole(study: str, algorithms: int, seeds: int) -> None:
    runs = reporting_runs(study)
    assert len(runs) == algorithms * seeds
    assert all(run.status.complete for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 3, 6])
def test_logistic_regression_repeats_the_committed_curves(number: int, real_data: Path) -> None:
    committed = reporting_runs("fidelity_mnist_logreg")[number]
    trial = replace(committed.trial, epochs=EPOCHS)
    bound = registry.bind(trial.optimizer, trial.hyperparameters)
    run = run_trial(trial, problems.get(trial.problem), bound, data_dir=real_data)
    ours, theirs = (r.curve("test", "accuracy")[1][: EPOCHS + 1] for r in (run, committed))
    assert ours == pytest.approx(theirs, abs=TOLERANCE)


@pytest.mark.slow
def test_fashion_mnist_repeats_the_committed_first_epoch(real_data: Path) -> None:
    committed = reporting_runs("fidelity_fmnist_2c2d")[0]
    trial = replace(committed.trial, epochs=1)
    bound = registry.bind(trial.optimizer, trial.hyperparameters)
    run = run_trial(trial, problems.get(trial.problem), bound, data_dir=real_data)
    assert run.final["test_accuracy"] == pytest.approx(
        committed.curve("test", "accuracy")[1][1], abs=TOLERANCE
    )
