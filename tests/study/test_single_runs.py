"""Single runs whose records are kept: what is recorded is not run again, what was edited is."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import optiscope
from optiscope import problems
from optiscope.optim.registry import BadSettingsError, get
from optiscope.optim.spec import OptimizerSpec
from optiscope.records import Run, RunStore, StoreError
from optiscope.study.single import RunInterrupted, RunNotStored

SETTINGS: dict[str, Any] = {"epochs": 1, "threads": 1}


def test_a_recorded_trial_is_not_run_again(tmp_path: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        run = optiscope.run("digits_logreg", "adam", out=tmp_path, notify=told.append, **SETTINGS)
    assert [message.split(",")[0] for message in told] == ["recorded before"]
    assert RunStore(tmp_path).hashes() == [run.trial.hash]
    other = optiscope.run("digits_logreg", "adam", seed=1, out=tmp_path, **SETTINGS)
    assert set(RunStore(tmp_path).hashes()) == {run.trial.hash, other.trial.hash}


def test_a_damaged_record_is_told_of_and_run_again(tmp_path: Path) -> None:
    told: list[str] = []
    first = optiscope.run("digits_logreg", "adam", out=tmp_path, **SETTINGS)
    path = RunStore(tmp_path).path(first.trial.hash) / "metrics.parquet"
    path.write_bytes(path.read_bytes()[:-3])
    again = optiscope.run("digits_logreg", "adam", out=tmp_path, notify=told.append, **SETTINGS)
    assert again.final == first.final
    (message,) = told
    assert "metrics.parquet was changed" in message
    assert f"moved to {tmp_path / '.damaged'}" in message


def test_an_edited_class_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    losses = []
    for rate in (0.1, 0.0):
        (tmp_path / "class_in_a_file.py").write_text(
            "import torch\n\n\nclass Mine(torch.optim.SGD):\n"
            f"    def __init__(self, params):\n        super().__init__(params, lr={rate})\n"
        )
        importlib.invalidate_caches()
        made = importlib.import_module("class_in_a_file").Mine
        run = optiscope.run("digits_logreg", made, out=tmp_path / "runs", **SETTINGS)
        losses.append(run.final["train_loss"])
        del sys.modules["class_in_a_file"]
    assert losses[0] < losses[1]


class _Shifted(torch.optim.SGD):
    pass


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (type("Mine", (torch.optim.SGD,), {"__module__": "nowhere"}), "whose class is in a file"),
        (OptimizerSpec("mine", torch.optim.SGD), "an OptimizerSpec with a version"),
        (OptimizerSpec("sgd", torch.optim.SGD, version=3), "and a name of its own"),
    ],
)
def test_a_record_needs_what_can_be_told_apart(tmp_path: Path, optimizer: Any, words: str) -> None:
    with pytest.raises(BadSettingsError, match=words):
        optiscope.run("digits_logreg", optimizer, out=tmp_path, **SETTINGS)
    assert isinstance(optiscope.run("digits_logreg", optimizer, **SETTINGS), Run)


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.SGD, _Shifted, get("sgd"), OptimizerSpec("mine", torch.optim.SGD, version=1)],
)
def test_what_can_be_told_apart_is_recorded(tmp_path: Path, optimizer: Any) -> None:
    run = optiscope.run("digits_logreg", optimizer, out=tmp_path, **SETTINGS)
    assert RunStore(tmp_path).hashes() == [run.trial.hash]


def test_a_changed_problem_does_not_pass_for_the_shipped_one(tmp_path: Path) -> None:
    shipped = problems.get("digits_logreg")
    assert optiscope.run(shipped, "sgd", out=tmp_path, **SETTINGS).status.complete
    with pytest.raises(BadSettingsError, match="a problem by its name or import path"):
        optiscope.run(replace(shipped, notes="mine"), "sgd", out=tmp_path, **SETTINGS)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_that_cannot_be_stored_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    def full(store: RunStore, run: Run, *also: object) -> Path:
        raise StoreError("the disk is full")

    def progress(share: float, latest: Any) -> None:
        if interrupted and share == 1.0:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunStore, "write", full)
    expected: type[BaseException] = RunInterrupted if interrupted else RunNotStored
    with pytest.raises(expected) as caught:
        optiscope.run("digits_logreg", "sgd", out=tmp_path, progress=progress, **SETTINGS)
    assert caught.value.run.final["train_loss"] > 0  # type: ignore[attr-defined]
