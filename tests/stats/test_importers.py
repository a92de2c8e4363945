"""Published results become records marked as imported, and stay out of claims."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from optiscope.records import Run, RunStore, Status
from optiscope.stats.claims import study_claims
from optiscope.stats.importers import (
    ImportFormatError,
    import_deepobs,
    import_table,
    imported_runs,
    keep_imported,
)
from optiscope.stats.importers.table import parse_settings
from stats.small_study import study

LOSSES = [2.3, 0.6, 0.5, 0.45]
ACCURACIES = [0.1, 0.79, 0.82, 0.84]
CURVES = {
    "train_losses": LOSSES,
    "test_losses": [x + 0.01 for x in LOSSES],
    "minibatch_train_losses": [2.3, 1.0, 0.7],
    "train_accuracies": ACCURACIES,
    "test_accuracies": [x - 0.01 for x in ACCURACIES],
}
# Settings as the two versions write them, in their own spelling.
TENSORFLOW = CURVES | {
    "optimizer": "MomentumOptimizer",
    "testproblem": "fmnist_2c2d",
    "weight_decay": None,
    "batch_size": 128,
    "num_epochs": 3,
    "learning_rate": 0.01,
    "lr_sched_epochs": [2],
    "lr_sched_factors": [0.1],
    "random_seed": 42,
    "train_log_interval": 1,
    "hyperparams": {"momentum": 0.99, "use_nesterov": False},
}
PYTORCH = CURVES | {
    "testproblem": "fmnist_2c2d",
    "batch_size": 128,
    "num_epochs": 3,
    "random_seed": 43,
    "weight_decay": 5e-4,
    "optimizer_name": "SGD",
    "optimizer_hyperparams": {"lr": 0.1, "momentum": 0.9},
    "training_params": {},
    "valid_losses": [x + 0.02 for x in LOSSES],
    "valid_accuracies": [x - 0.02 for x in ACCURACIES],
}
NAME = "random_seed__42__2019-02-13-15-47-01.json"


def write(folder: Path, content: Any, name: str = NAME) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def test_a_tensorflow_run(tmp_path: Path) -> None:
    (run,) = import_deepobs(write(tmp_path, TENSORFLOW))
    assert run.imported == "DeepOBS 1.1 (TensorFlow)"
    assert run.status is Status.FINISHED
    trial = run.trial
    assert (trial.problem, trial.problem_version, trial.seed) == ("fmnist_2c2d", 0, 42)
    assert (trial.optimizer, trial.epochs, trial.batch_size) == ("MomentumOptimizer", 3, 128)
    assert trial.hyperparameters == {"lr": 0.01, "momentum": 0.99, "use_nesterov": False}
    assert trial.schedule == {"name": "steps", "epochs": [2], "factors": [0.1]}
    epochs, values = run.curve("test", "accuracy")
    assert epochs == [0.0, 1.0, 2.0, 3.0]
    assert values == CURVES["test_accuracies"]
    assert run.final["test_accuracy"] == pytest.approx(0.83)
    assert run.best["train_loss"] == pytest.approx(0.45)
    assert not any(key.startswith("valid") for key in run.final)
    assert run.started == "2019-02-13T15:47:01"
    assert (dict(run.seconds), dict(run.counts), run.steps) == ({}, {}, -1)


def test_a_pytorch_run(tmp_path: Path) -> None:
    (run,) = import_deepobs(write(tmp_path, PYTORCH))
    assert run.imported == "DeepOBS 1.2.0 beta"
    assert run.trial.optimizer == "SGD"
    assert run.trial.hyperparameters == {"lr": 0.1, "momentum": 0.9, "problem_weight_decay": 5e-4}
    assert run.final["valid_accuracy"] == pytest.approx(0.82)
    assert run.trial.schedule is None


def test_epochs_that_were_filled_up_are_divergence(tmp_path: Path) -> None:
    filled = {k: [*v[:2], v[0], v[0]] if k[0] in "tv" and k.endswith(("losses", "accuracies"))
              and isinstance(v, list) else v for k, v in PYTORCH.items()}  # fmt: skip
    (run,) = import_deepobs(write(tmp_path, filled))
    assert run.status is Status.DIVERGED
    assert "2 epochs filled up" in run.reason
    assert run.curve("test", "loss")[0] == [0.0, 1.0]


def test_a_loss_that_is_no_number_is_divergence(tmp_path: Path) -> None:
    broken = TENSORFLOW | {"train_losses": [2.3, 5.0, math.nan, math.nan]}
    (run,) = import_deepobs(write(tmp_path, broken))
    assert run.status is Status.DIVERGED
    assert "no number at epoch 2" in run.reason
    assert run.best["train_loss"] == 2.3


def test_a_folder_of_runs_in_order_of_name(tmp_path: Path) -> None:
    for seed in (44, 42, 43):
        content = TENSORFLOW | {"random_seed": seed}
        write(tmp_path, content, f"fmnist_2c2d/MomentumOptimizer/lr__1.e-02/seed__{seed}.json")
    assert [run.trial.seed for run in import_deepobs(tmp_path)] == [42, 43, 44]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected an object of settings"),
        ({"optimizer": "SGD"}, "'learning_rate' is missing"),
        (PYTORCH | {"test_losses": []}, "'test_losses' is missing or empty"),
        (PYTORCH | {"test_losses": [1.0]}, "different lengths"),
        (PYTORCH | {"num_epochs": "many"}, "num_epochs must be a whole number"),
    ],
)
def test_files_of_neither_layout(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ImportFormatError, match=message) as error:
        import_deepobs(write(tmp_path, content))
    assert NAME in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match="holds no JSON file"):
        import_deepobs(tmp_path)
    with pytest.raises(ImportFormatError, match="cannot read"):
        import_deepobs(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ImportFormatError, match="is not JSON"):
        import_deepobs(tmp_path / "bad.json")


CURVE_TABLE = """\
experiment,problem,optimizer,hyperparameters,epoch,n_runs,test_loss_mean,test_loss_std,test_acc_mean
baselines,fmnist_2c2d,SGD,num_epochs__2__batch_size__128__lr__1.e-01__nesterov__False,0,10,2.3,0.01,0.1
baselines,fmnist_2c2d,SGD,num_epochs__2__batch_size__128__lr__1.e-01__nesterov__False,1,10,0.5,0.02,0.8
baselines,fmnist_2c2d,SGD,num_epochs__2__batch_size__128__lr__1.e-01__nesterov__False,2,10,0.6,0.03,0.9
rerun,fmnist_2c2d,SGD,num_epochs__2__batch_size__128__lr__1.e-01__nesterov__False,2,1,0.7,,0.85
"""
FINAL_TABLE = """\
problem,optimizer,framework,lr,hyperparameters,batch_size,num_epochs,n_seeds,final_test_acc_mean,\
final_test_acc_std,best_test_acc_per_seed_mean,n_aborted_or_diverged
fmnist_2c2d,Momentum,PyTorch,0.02,"{""momentum"": 0.9}",128,100,10,0.92,0.001,0.925,1
fmnist_2c2d,Momentum,PyTorch,9.0,"{""momentum"": 0.9}",128,100,1,0.1,,,1
"""


def test_a_table_of_curves(tmp_path: Path) -> None:
    file = tmp_path / "curves.csv"
    file.write_text(CURVE_TABLE)
    first, second = import_table(file)
    assert first.imported == "curves.csv, baselines"
    assert second.imported == "curves.csv, rerun"
    assert "mean over 10 runs" in first.reason
    assert first.trial.seed == -1
    assert (first.trial.epochs, first.trial.batch_size) == (2, 128)
    assert first.trial.hyperparameters == {"lr": 0.1, "nesterov": False}
    assert first.curve("test", "accuracy") == ([0.0, 1.0, 2.0], [0.1, 0.8, 0.9])
    assert first.curve("test", "loss_std")[1] == [0.01, 0.02, 0.03]
    assert first.final == {"test_loss": 0.6, "test_accuracy": 0.9}
    assert first.best == {"test_loss": 0.5, "test_accuracy": 0.9}


def test_a_table_of_final_values(tmp_path: Path) -> None:
    file = tmp_path / "final.csv"
    file.write_text(FINAL_TABLE)
    sound, failed = import_table(file, source="a published table")
    assert sound.imported == "a published table, PyTorch"
    assert sound.trial.hyperparameters == {"momentum": 0.9, "lr": 0.02}
    assert sound.curve("test", "accuracy") == ([100.0], [0.92])
    assert sound.best == {"test_accuracy": 0.925}
    assert sound.status is Status.FINISHED
    assert sound.reason.endswith("of which 1 diverged")
    assert failed.status is Status.DIVERGED
    assert failed.best == {}


def test_a_table_of_one_run_per_seed(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    rows = [f"p,adam,{seed},{e},64,{0.1 * e + seed / 10}" for seed in (1, 2) for e in (0, 1)]
    file.write_text("\n".join(["problem,optimizer,seed,epoch,batch_size,test_accuracy", *rows]))
    one, two = import_table(file)
    assert (one.trial.seed, two.trial.seed) == (1, 2)
    assert two.final["test_accuracy"] == pytest.approx(0.3)
    assert two.trial.epochs == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("problem,test_loss\np,1", "has no column optimizer"),
        ("problem,optimizer\np,o", "has no column test_accuracy or test_loss"),
        ("problem,optimizer,test_loss,epoch\np,o,1,1", "line 2: no batch_size"),
        ("problem,optimizer,test_loss,batch_size\np,o,1,8", "line 2: no num_epochs"),
        (
            "problem,optimizer,test_loss,batch_size,epochs\np,o,high,8,1",
            "line 2: test_loss: could not",
        ),
        ("problem,optimizer,test_loss,hyperparameters\np,o,1,a__b__c", "line 2: .*pairs"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(ImportFormatError, match=message) as error:
        import_table(file)
    assert "\n" not in str(error.value)
    with pytest.raises(ImportFormatError, match="cannot read"):
        import_table(tmp_path / "none.csv")


def test_settings_in_the_words_of_a_folder_name() -> None:
    text = "num_epochs__100__batch_size__128__est_rank__2__lr__1.e-02__nesterov__True__x__None"
    assert parse_settings(text) == {
        "num_epochs": 100,
        "batch_size": 128,
        "est_rank": 2,
        "lr": 0.01,
        "nesterov": True,
        "x": None,
    }
    assert parse_settings("") == {}


def test_imported_runs_stand_beside_a_study_and_enter_no_claim(tmp_path: Path) -> None:
    values = {"Adam": (0.9, 0.91, 0.92, 0.93, 0.94), "SGD": (0.8, 0.82, 0.81, 0.84, 0.83)}
    folder = study(tmp_path / "study", values)
    before = [answer.to_dict() for answer in study_claims(folder)]
    published = [
        *import_deepobs(write(tmp_path, TENSORFLOW)),
        *import_deepobs(write(tmp_path, PYTORCH)),
    ]
    assert keep_imported(folder, published) == 2
    assert keep_imported(folder, published) == 0
    kept = imported_runs(folder)
    assert [run.to_dict() for run in kept] == [run.to_dict() for run in published]
    assert [list(run.metrics) for run in kept] == [list(run.metrics) for run in published]
    assert [answer.to_dict() for answer in study_claims(folder)] == before
    own = next(RunStore(folder.store.root).scan())
    assert isinstance(own, Run)
    with pytest.raises(ValueError, match="was not imported"):
        keep_imported(folder, [own])
    assert imported_runs(study(tmp_path / "other", values)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "problem,optimizer,num_epochs,batch_size,test_acc\np,sgd,1,8,0.9\np,sgd,1,8,0.8\n",
            "lines 2 and 3: final values of one run twice",
        ),
        (
            "problem,optimizer,num_epochs,batch_size,momentum,epoch,test_acc\n"
            "p,sgd,1,8,0.5,0,0.1\np,sgd,1,8,0.9,0,0.2\n",
            "lines 2 and 3: epoch 0 of one run twice",
        ),
    ],
)
def test_runs_that_a_table_does_not_tell_apart_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "table.csv"
    file.write_text(text)
    with pytest.raises(ImportFormatError, match=message):
        import_table(file)
