"""Weights kept beside a record: what was evaluated, and nothing else is different."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optiscope import problems
from optiscope.objective.weight_files import WeightFileError, read_weights, write_weights
from optiscope.records import Run, RunStore, Status, compact
from optiscope.records.kept_weights import Keep, KeepError, kept_weights
from optiscope.study.single import RunInterrupted, run
from optiscope.train import loop

ARGUMENTS: dict[str, Any] = {"hyperparameters": {"lr": 0.1}, "epochs": 2, "threads": 1}


@pytest.mark.parametrize(
    ("wanted", "epochs"),
    [
        ("0,5,10-12", frozenset({0, 5, 10, 11, 12})),
        ("all", "all"),
        ("last", "last"),
        (3, frozenset({3})),
        (range(2), frozenset({0, 1})),
        ((4, 4), frozenset({4})),
    ],
)
def test_epochs_are_numbers_ranges_or_words(wanted: Any, epochs: object) -> None:
    assert Keep.of(wanted).epochs == epochs


@pytest.mark.parametrize("wanted", ["", "1,", "5-2", "-1", "first", "0-99999999", [], [-1], [1.5],
                                    [True], 1.5, "1.0"])  # fmt: skip
def test_other_words_are_refused(wanted: Any) -> None:
    with pytest.raises(KeepError, match="such as 0,5,10-20"):
        Keep.of(wanted)


def test_kept_weights_are_those_that_were_evaluated(tmp_path: Path) -> None:
    plain = run("digits_logreg", "sgd", **ARGUMENTS, out=tmp_path / "plain")
    kept = run("digits_logreg", "sgd", **ARGUMENTS, out=tmp_path / "kept", keep_weights="0-2")
    assert kept.trial.hash == plain.trial.hash
    assert kept.metrics == plain.metrics
    store = RunStore(tmp_path / "kept")
    folder = store.path(kept.trial.hash)
    files = kept_weights(folder)
    assert list(files) == [0, 1, 2]
    assert store.check(kept.trial.hash) is not None
    assert not (tmp_path / "kept" / ".weights" / kept.trial.hash).exists()
    problem = problems.get("digits_logreg")
    inputs, targets = problem.data(None).test.select(torch.arange(300))
    for epoch, path in files.items():
        model = problem.make_model()
        model.load_state_dict(read_weights(path))
        loss = problem.loss(model.eval()(inputs), targets).mean().item()
        recorded = next(m.value for m in kept.metrics
                        if (m.epoch, m.split, m.name) == (epoch, "test", "loss"))  # fmt: skip
        assert loss == pytest.approx(recorded, rel=1e-5)
    assert compact(store).packed == 0  # segments have no place for weights
    assert len(kept_weights(folder)) == 3


def test_of_a_run_that_stops_early_the_last_is_kept(tmp_path: Path) -> None:
    done = run(
        "digits_logreg", "sgd", hyperparameters={"lr": 1e-6}, epochs=8, threads=1, out=tmp_path,
        keep_weights="last",
        early_stopping={"metric": "valid_loss", "patience": 1, "min_delta": 0.5},
    )  # fmt: skip
    assert done.status is Status.STOPPED
    assert list(kept_weights(tmp_path / done.trial.hash)) == [max(m.epoch for m in done.metrics)]


def test_a_run_that_goes_on_has_the_weights_of_both_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = loop.WeightKeeper.look

    def interrupting(self: loop.WeightKeeper, epoch: int, model: nn.Module) -> None:
        look(self, epoch, model)
        if epoch == 1:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop.WeightKeeper, "look", interrupting)
        with pytest.raises(RunInterrupted):
            run("digits_logreg", "sgd", **ARGUMENTS, out=tmp_path, keep_weights="all")
    done = run("digits_logreg", "sgd", **ARGUMENTS, out=tmp_path, keep_weights="all")
    assert done.status is Status.FINISHED
    assert list(kept_weights(tmp_path / done.trial.hash)) == [0, 1, 2]
    whole = run("digits_logreg", "sgd", **ARGUMENTS, out=tmp_path / "whole", keep_weights="2")
    ends = [read_weights(kept_weights(f / done.trial.hash)[2]) for f in
            (tmp_path, tmp_path / "whole")]  # fmt: skip
    assert whole.metrics == done.metrics
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_what_cannot_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeepError, match="out"):
        run("digits_logreg", "sgd", **ARGUMENTS, keep_weights="all")
    with pytest.raises(KeepError, match="horizon of 2"):
        run("digits_logreg", "sgd", **ARGUMENTS, out=tmp_path, keep_weights=[1, 7])
    run("digits_logreg", "sgd", **ARGUMENTS, out=tmp_path)
    said: list[str] = []
    run("digits_logreg", "sgd", **ARGUMENTS, out=tmp_path, keep_weights="all", notify=said.append)
    assert "keeps no weights" in said[-1]

    def full(state: object, path: Path) -> None:
        raise WeightFileError("cannot write: No space left on device")

    monkeypatch.setattr("optiscope.train.weights.write_weights", full)
    said.clear()
    done = run("digits_logreg", "sgd", **ARGUMENTS, out=tmp_path / "full", keep_weights="all",
               notify=said.append)  # fmt: skip
    assert done.status is Status.FINISHED
    assert len(said) == 1
    assert "No space left" in said[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64,
                                   torch.bool, torch.uint8])  # fmt: skip
def test_every_type_goes_in_and_out(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shared = torch.randn(3, 4).mul(3).to(dtype)
    state = {"a": shared, "b": shared.T, "scalar": shared[0, 0], "none": shared[:0], "note": "x"}
    path = tmp_path / "deep" / "model.safetensors"
    write_weights(state, path)
    found = read_weights(path)
    assert found.keys() == {"a", "b", "scalar", "none"}
    for name, tensor in found.items():
        expected = state[name]
        assert isinstance(expected, torch.Tensor)
        assert tensor.dtype == dtype
        assert torch.equal(tensor, expected)
    from safetensors.torch import load_file  # the reference implementation

    assert torch.equal(load_file(path)["b"], shared.T)


def test_a_type_without_a_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightFileError, match="complex"):
        write_weights({"w": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_study_keeps_those_of_its_reporting_runs(tmp_path: Path) -> None:
    from optiscope.study import run_study
    from optiscope.study.resolver import study_from_text

    text = """
name = "kept"
question = "?"
problems = ["digits_logreg"]
seeds = [1, 2]
epochs = 1
keep_weights = "last"
[tuning]
budget = 1
seeds = [0]
[[algorithms]]
optimizer = "sgd"
"""
    study = study_from_text(text, "kept.toml")
    without = study_from_text(text.replace('keep_weights = "last"\n', ""), "kept.toml")
    point = {"lr": 0.1}
    algorithm, problem = study.algorithms[0], study.problems[0]
    assert (study.trial(algorithm, problem, point, 1).hash
            == without.trial(algorithm, problem, point, 1).hash)  # fmt: skip
    folder = run_study(study, tmp_path / "kept", workers=1)
    kept = {
        found.trial.seed: list(kept_weights(folder.store.path(found.trial.hash)))
        for found in folder.store.scan()
        if isinstance(found, Run)
    }
    assert kept == {0: [], 1: [1], 2: [1]}
    with pytest.raises(Exception, match=r"line 7.*horizon of 1"):
        study_from_text(text.replace('"last"', "[0, 5]"), "kept.toml")
