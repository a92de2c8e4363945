"""Trials in one batch measure what each would alone, and never see each other's numbers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_problems import STEPS, noisy_splits, small
from torch import Tensor, nn

from optiscope import problems
from optiscope.data.samples import Splits, TensorSamples
from optiscope.optim import registry
from optiscope.problems import Problem
from optiscope.records import Run, Status, Trial
from optiscope.train import run_trial
from optiscope.train.loop import TrialError, run_trials


def in_double(problem: Problem, samples: int = 96) -> Problem:
    """A problem in float64, with few samples."""

    def few(part: Any) -> TensorSamples:
        some = part.select(torch.arange(min(samples, len(part))))
        inputs = some.inputs.double() if some.inputs.is_floating_point() else some.inputs
        targets = some.targets.double() if some.targets.is_floating_point() else some.targets
        return TensorSamples(inputs, targets)

    def data(folder: Path | None) -> Splits:
        splits = problem.data(folder)
        parts = (splits.train, splits.train_eval, splits.valid, splits.test)
        return dataclasses.replace(Splits(*map(few, parts)), augment=splits.augment)

    return dataclasses.replace(
        problem, name="double", make_model=lambda: problem.make_model().double(), data=data,
        batch_size=16,
    )  # fmt: skip


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(3, 8), nn.Dropout(0.4), nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.drop(torch.tanh(self.first(inputs[:, 1:]))))
        return outputs


class Normed(Dropping):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(torch.relu(self.norm(self.first(inputs[:, 1:]))))
        return outputs


dropping = dataclasses.replace(small, make_model=Dropping, data=noisy_splits)
normed = dataclasses.replace(small, make_model=Normed)


def both(
    problem: Problem, optimizer: str, points: list[dict[str, Any]], **fields: Any
) -> list[tuple[Run, Run]]:
    """Runs of trials in one batch, each beside the run of its trial alone."""
    bound = [registry.bind(optimizer, point) for point in points]
    values: dict[str, Any] = {"epochs": 3, "batch_size": problem.batch_size} | fields
    trials = [
        Trial(problem.name, 1, optimizer, b.hyperparameters, seed, **values)
        for seed, b in enumerate(bound)
    ]
    alone = [run_trial(t, problem, b) for t, b in zip(trials, bound, strict=True)]
    named = [dataclasses.replace(t, together=True) for t in trials]
    together = list(run_trials(named, problem, bound))
    assert [t.hash for t in named] != [t.hash for t in trials]
    return list(zip(together, alone, strict=True))


def assert_equal(one: Run, other: Run, *, within: float = 1e-10) -> None:
    assert (one.status, one.steps, one.counts) == (other.status, other.steps, other.counts)
    assert one.environment["together"] >= 1
    assert len(one.metrics) == len(other.metrics)
    for a, b in zip(one.metrics, other.metrics, strict=True):
        assert a[:4] == b[:4]
        assert a.value == pytest.approx(b.value, rel=within, abs=1e-12, nan_ok=True), a


POINTS: dict[str, list[dict[str, Any]]] = {
    "sgd": [{"lr": 0.1}, {"lr": 0.01}, {"lr": 0.3}],
    "momentum": [{"lr": 0.05}, {"lr": 0.01}, {"lr": 0.02}],
    "adamw": [{"lr": 0.01}, {"lr": 0.001}, {"lr": 0.03, "weight_decay": 0.1}],
    "lark": [{}, {}, {}],
}


@pytest.mark.parametrize("optimizer", POINTS)
@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv", "digits_autoencoder"])
def test_kinds_of_problems_equal_single_runs(name: str, optimizer: str) -> None:
    problem = in_double(problems.get(name))
    for one, alone in both(problem, optimizer, POINTS[optimizer], epochs=2):
        assert one.status is Status.FINISHED
        # Convolutions sum in another order, and Lark's factors enlarge what differs: 1.5e-10.
        sensitive = (name, optimizer) == ("digits_conv", "lark")
        assert_equal(one, alone, within=1e-8 if sensitive else 1e-10)


@pytest.mark.parametrize("optimizer", POINTS)
def test_dropout_draws_what_it_draws_alone(optimizer: str) -> None:
    fields = {"schedule": {"name": "linear_decay"}, "clip": {"norm": 0.5}}
    for one, alone in both(in_double(dropping), optimizer, POINTS[optimizer], **fields):
        assert_equal(one, alone)


def test_running_statistics_are_each_members_own() -> None:
    for one, alone in both(in_double(normed), "momentum", POINTS["momentum"]):
        assert_equal(one, alone)


def test_one_that_diverges_leaves_the_others_as_they_are() -> None:
    points = [{"lr": 0.1}, {"lr": 1e30}, {"lr": 0.05}]
    runs = both(in_double(problems.get("digits_mlp")), "sgd", points, epochs=2)
    assert [one.status for one, _ in runs] == [Status.FINISHED, Status.DIVERGED, Status.FINISHED]
    for one, alone in runs:
        assert_equal(one, alone)
    assert all(math.isfinite(m.value) for one, _ in runs[::2] for m in one.metrics)


def test_early_stopping_is_each_members_own() -> None:
    stopping = {"metric": "valid_loss", "patience": 1, "min_delta": 0.05}
    points = [{"lr": 1e-4}, {"lr": 0.3}]
    runs = both(in_double(small), "sgd", points, epochs=6, early_stopping=stopping)
    for one, alone in runs:
        assert_equal(one, alone)
    assert runs[0][0].steps < 6 * STEPS


def test_hashes_of_trials_alone_are_what_they_were() -> None:
    trial = Trial("digits_mlp", 1, "sgd", {"lr": 0.1}, 1, 2, 8)
    assert trial.together is None
    assert "together" not in {k for k, v in trial.to_dict().items() if v is not None}


@pytest.mark.parametrize(
    ("optimizers", "fields", "words"),
    [
        (["sgd", "preconditioned_sgd"], [{}, {}], "expected one of sgd, .* got preconditioned_sgd"),
        (["sgd", "sgd"], [{}, {"epochs": 9}], "got another epochs"),
    ],
)
def test_what_cannot_train_together_is_one_line(
    optimizers: list[str], fields: list[dict[str, Any]], words: str
) -> None:
    bound = [registry.bind(o, {"lr": 0.1} if o == "sgd" else {}) for o in optimizers]
    trials = [
        Trial(**{**dataclasses.asdict(Trial("small", 1, o, {}, 1, 2, 8, together=True)), **more})
        for o, more in zip(optimizers, fields, strict=True)
    ]
    with pytest.raises(TrialError, match=words):
        list(run_trials(trials, small, bound))


class Odd(Dropping):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs + torch.rand_like(inputs))


def test_a_model_that_draws_by_itself_is_one_line() -> None:
    odd = dataclasses.replace(small, make_model=Odd)
    bound = registry.bind("sgd", {"lr": 0.1})
    trial = Trial("small", 1, "sgd", bound.hyperparameters, 1, 2, 8, together=True)
    with pytest.raises(TrialError, match="small cannot train in a batch of trials") as caught:
        list(run_trials([trial], odd, [bound]))
    assert "\n" not in str(caught.value)
