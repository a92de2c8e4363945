"""Problems that train in milliseconds and remember what they were shown.

Index legend: N samples, B samples in a batch, D features, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optiscope.data.samples import Splits, TensorSamples
from optiscope.optim import registry
from optiscope.optim.spec import OptimizerSpec
from optiscope.problems import Problem
from optiscope.problems.losses import ACCURACY, cross_entropy
from optiscope.records import Run, Trial
from optiscope.train import run_trial

FEATURES, CLASSES = 4, 3
TRAIN, TRAIN_EVAL, VALID, TEST = 70, 13, 1017, 29


def _samples(count: int, seed: int) -> TensorSamples:
    """Feature 0 is the number of the sample; the class is a noisy function of the others."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, FEATURES, generator=generator)
    targets = (inputs[:, 1:4] + 0.3 * torch.randn(count, 3, generator=generator)).argmax(1)
    inputs[:, 0] = torch.arange(count)
    return TensorSamples(inputs, targets)


def small_splits(_: Any) -> Splits:
    return Splits(*(_samples(n, i) for i, n in enumerate((TRAIN, TRAIN_EVAL, VALID, TEST))))


def noisy_splits(_: Any) -> Splits:
    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(inputs.shape, generator=generator)
        noise[:, 0] = 0.0
        return inputs + 0.1 * noise

    return dataclasses.replace(small_splits(None), augment=augment)


class Linear(nn.Module):
    """A linear classifier that does not look at the sample's number; with dropout on demand."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.layer = nn.Linear(FEATURES - 1, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(self.drop(inputs[:, 1:]))
        return outputs


small = Problem(
    name="small",
    make_model=Linear,
    loss=cross_entropy,
    data=small_splits,
    batch_size=8,
    epochs=3,
    metric=ACCURACY,
    dataset="none",
    parameters=15,
    source="tests",
    licence="none",
)
STEPS = TRAIN // small.batch_size  # per epoch; 6 samples are left out


class Watched:
    """A problem whose model is kept, with the sample numbers and inputs of each training step."""

    def __init__(self, problem: Problem) -> None:
        self.models: list[nn.Module] = []
        self.initial: list[list[Tensor]] = []
        self.inputs: list[Tensor] = []
        make = problem.make_model

        def make_model() -> nn.Module:
            model = make()
            self.models.append(model)
            self.initial.append([p.detach().clone() for p in model.parameters()])
            model.register_forward_pre_hook(self._remember)
            return model

        self.problem = dataclasses.replace(problem, make_model=make_model)

    def _remember(self, model: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if model.training:
            self.inputs.append(arguments[0].clone())

    @property
    def model(self) -> nn.Module:
        return self.models[-1]

    @property
    def batches(self) -> list[list[int]]:
        return [[int(number) for number in inputs[:, 0]] for inputs in self.inputs]

    @property
    def parameters(self) -> list[Tensor]:
        return [p.detach() for p in self.model.parameters()]


def failing_at(problem: Problem, step: int, act: Callable[[Tensor], Tensor]) -> Problem:
    """``problem`` whose losses [B] go through ``act`` at that training step, from 1."""
    calls = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        losses = problem.loss(outputs, targets)
        if not outputs.requires_grad:
            return losses
        calls += 1
        return act(losses) if calls == step else losses

    return dataclasses.replace(problem, loss=loss)


def train(
    problem: Problem,
    optimizer: str | type[Optimizer] | OptimizerSpec = "sgd",
    hyperparameters: dict[str, Any] | None = None,
    **fields: Any,
) -> Run:
    bound = registry.bind(optimizer, {"lr": 0.1} if hyperparameters is None else hyperparameters)
    values: dict[str, Any] = {
        "problem": problem.name,
        "problem_version": problem.version,
        "optimizer": bound.spec.name,
        "hyperparameters": bound.hyperparameters,
        "seed": 5,
        "epochs": problem.epochs,
        "batch_size": problem.batch_size,
    }
    return run_trial(Trial(**{**values, **fields}), problem, bound)
