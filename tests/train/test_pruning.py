"""Optuna's pruners as a declared part of a tuning."""

from __future__ import annotations

import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from optiscope.records import Run, Status
from optiscope.study import StudyError, load_study, run_study
from optiscope.train.stopping import Pruning, check_pruner, pruner_names

PAST = [
    {"values": [1.0, 0.8, 0.6], "complete": True},
    {"values": [0.9, 0.7, 0.5], "complete": True},
    {"values": [0.2], "complete": False},  # pruned itself: the median leaves it out
]


@pytest.mark.parametrize(("value", "stops"), [(0.94, False), (0.96, True)])
def test_median_pruner_compares_with_the_median_of_complete_trials(
    value: float, stops: bool
) -> None:
    pruning = Pruning({"name": "MedianPruner", "n_startup_trials": 2}, "valid_loss", PAST)
    assert np.median([1.0, 0.9]) == 0.95
    assert (pruning.update(1, {"valid_loss": value}) is not None) == stops


def test_accuracy_is_better_when_it_is_higher() -> None:
    pruning = Pruning({"name": "MedianPruner", "n_startup_trials": 2}, "valid_accuracy", PAST)
    assert pruning.update(1, {"valid_accuracy": 0.96}) is None


def test_every_listed_pruner_can_be_built_or_says_what_it_needs() -> None:
    needs = {
        "PercentilePruner": {"percentile": 25.0},
        "ThresholdPruner": {"upper": 2.0},
    }
    assert "MedianPruner" in pruner_names()
    for name in pruner_names():
        check_pruner({"name": name, **needs.get(name, {})})


def test_unknown_pruner_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'MedianPruner'"):
        check_pruner({"name": "medianpruner"})


def study_file(folder: Path, pruner: str) -> Path:
    path = folder / "study.toml"
    path.write_text(
        textwrap.dedent(f"""
        name = "pruned"
        question = "Which rate?"
        problems = ["digits_logreg"]
        epochs = 3
        seeds = [5]
        [tuning]
        budget = 5
        seeds = [1]
        [[algorithms]]
        optimizer = "sgd"
        pruner = {pruner}
        """)
    )
    return path


def one_thread(_: int) -> ThreadPoolExecutor:
    """An executor that starts at once."""
    return ThreadPoolExecutor(1)


def test_a_pruned_trial_is_charged_and_never_chosen(tmp_path: Path) -> None:
    path = study_file(tmp_path, '{ name = "MedianPruner", n_startup_trials = 1 }')
    folder = run_study(load_study(path), tmp_path / "out", executor=one_thread)
    runs = [(entry, folder.store.read(entry.trial_hash)) for entry in folder.ledger()]
    tuning = [(e, r) for e, r in runs if e.role == "tuning" and isinstance(r, Run)]
    pruned = [entry for entry, run in tuning if run.pruned]
    assert len(tuning) == 5
    assert pruned, "no trial fell behind the median of those before it"
    assert all(run.status is Status.STOPPED for _, run in tuning if run.pruned)
    chosen = next(entry.hyperparameters for entry, _ in runs if entry.role == "reporting")
    assert chosen not in [entry.hyperparameters for entry in pruned]
    kept = [r.final["valid_loss"] for _, r in tuning if not r.pruned]
    best = next(e for e, r in tuning if not r.pruned and r.final["valid_loss"] == min(kept))
    assert best.hyperparameters == chosen


def test_a_bad_pruner_is_refused_with_its_line(tmp_path: Path) -> None:
    path = study_file(tmp_path, '{ name = "MedianPruner", startup = 1 }')
    with pytest.raises(StudyError, match=r"study.toml, line 12: pruner MedianPruner: .*startup"):
        load_study(path)


def test_a_trial_that_early_stopping_ended_is_not_pruned(tmp_path: Path) -> None:
    path = study_file(tmp_path, '{ name = "MedianPruner", n_startup_trials = 50 }')
    stopping = 'early_stopping = { metric = "valid_loss", patience = 1, min_delta = 0.5 }'
    path.write_text(path.read_text().rstrip() + "\n" + stopping + "\n")
    folder = run_study(load_study(path), tmp_path / "out", executor=one_thread)
    runs = [(e, folder.store.read(e.trial_hash)) for e in folder.ledger()]
    tuning = [(e, r) for e, r in runs if e.role == "tuning" and isinstance(r, Run)]
    assert any(run.status is Status.STOPPED for _, run in tuning)
    assert not any(run.pruned for _, run in tuning)
    best = min(tuning, key=lambda pair: pair[1].final["valid_loss"])[0]
    chosen = next(entry.hyperparameters for entry, _ in runs if entry.role == "reporting")
    assert best.hyperparameters == chosen


def test_pruners_that_need_more_than_curves_are_refused() -> None:
    assert "SuccessiveHalvingPruner" not in pruner_names()
