"""Each conformance test fails on a problem that is broken in just its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optiscope import problems
from optiscope.data import Splits, TensorSamples
from optiscope.problems import Problem
from optiscope.problems.problem import Metric, ParamGroup
from optiscope.testing.problems import ProblemConformance

SOUND = problems.get("digits_logreg")
SPLITS = SOUND.data(None)
SHARED = nn.Linear(64, 10)


def seeded_splits(_: Any) -> Splits:
    """A split that follows the run's generator."""
    every = torch.cat([SPLITS.train.inputs, SPLITS.valid.inputs])
    labels = torch.cat([SPLITS.train.targets, SPLITS.valid.targets])
    order = torch.randperm(len(every))
    samples = TensorSamples(every[order], labels[order])
    train, valid = samples.subset(torch.arange(1000)), samples.subset(torch.arange(1000, 1400))
    return replace(SPLITS, train=train, train_eval=train, valid=valid)


def overlapping(_: Any) -> Splits:
    return replace(SPLITS, valid=SPLITS.train_eval)


def evaluated_elsewhere(_: Any) -> Splits:
    return replace(SPLITS, train_eval=SPLITS.valid)


def tiny(_: Any) -> Splits:
    few = SPLITS.train.subset(torch.arange(5))
    return replace(SPLITS, train=few, train_eval=few)


def restless(_: Any) -> Splits:
    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        return inputs + torch.rand(len(inputs), 1, 1, 1)

    return replace(SPLITS, augment=augment)


def destructive(_: Any) -> Splits:
    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        return inputs.mul_(0.5)

    return replace(SPLITS, augment=augment)


class BatchDependent(nn.Module):
    """Centres a batch even in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return self.linear(flat - flat.mean(0))


class SinglePrecision(BatchDependent):
    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1)).float()


class Idle(BatchDependent):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1))


class Rounded(BatchDependent):
    """Has no useful gradient: its step downhill goes uphill."""

    def forward(self, images: Tensor) -> Tensor:
        logits = self.linear(images.flatten(1))
        return 2 * logits.detach() - logits


def shared_model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), SHARED)


def drifting_model() -> nn.Module:
    DRIFT.append(0.0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.constant_(model[1].bias[:1], float(len(DRIFT)))
    return model


DRIFT: list[float] = []


def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets)


def weights_alone(model: nn.Module) -> list[ParamGroup]:
    return [{"params": [p for p in model.parameters() if p.ndim > 1]}]


def misspelt(model: nn.Module) -> list[ParamGroup]:
    return [{"params": list(model.parameters()), "weight_decay": 0.1}]


def mean_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(-1) == targets).double().mean()


BROKEN: list[tuple[str, Problem]] = [
    ("parameters_are_as_many_as_stated", replace(SOUND, parameters=651)),
    ("a_seed_determines_the_weights", replace(SOUND, make_model=drifting_model)),
    ("models_share_no_memory", replace(SOUND, make_model=shared_model)),
    ("splits_are_the_same_in_every_call", replace(SOUND, data=seeded_splits)),
    ("splits_are_disjoint", replace(SOUND, data=overlapping)),
    ("splits_are_disjoint", replace(SOUND, data=evaluated_elsewhere)),
    ("no_split_is_empty", replace(SOUND, data=tiny)),
    ("first_loss", replace(SOUND, first_loss=2.0)),
    ("first_loss", replace(SOUND, make_model=drifting_model, first_loss=None)),
    ("losses_are_per_sample", replace(SOUND, loss=mean_loss)),
    ("losses_are_per_sample", replace(SOUND, make_model=BatchDependent)),
    ("metric_is_per_sample", replace(SOUND, metric=Metric("accuracy", mean_accuracy, True))),
    ("works_in_float64", replace(SOUND, make_model=SinglePrecision)),
    ("groups_partition_the_parameters", replace(SOUND, param_groups=weights_alone)),
    ("groups_partition_the_parameters", replace(SOUND, param_groups=misspelt)),
    ("every_parameter_is_trained", replace(SOUND, make_model=Idle)),
    ("a_small_step_downhill_lowers_the_loss", replace(SOUND, make_model=Rounded)),
    ("augmentation_follows_its_generator", replace(SOUND, data=restless)),
    ("augmentation_follows_its_generator", replace(SOUND, data=destructive)),
]


def check(problem: Problem, test: str) -> Callable[[], None]:
    suite = type("Suite", (ProblemConformance,), {"problem": problem})
    suite.setup_class()
    return getattr(suite(), f"test_{test}")


@pytest.mark.parametrize(
    ("test", "problem"), BROKEN, ids=[f"{i}-{test}" for i, (test, _) in enumerate(BROKEN)]
)
def test_a_broken_problem_fails(test: str, problem: Problem) -> None:
    check(SOUND, test)()
    with pytest.raises((AssertionError, RuntimeError)):
        check(problem, test)()


def test_every_conformance_test_can_fail() -> None:
    tests = {n.removeprefix("test_") for n in dir(ProblemConformance) if n.startswith("test_")}
    assert tests == {test for test, _ in BROKEN}
