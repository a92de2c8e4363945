"""Plain training loops of the talk's experiments, on samples held in memory.

Index legend: n samples, B samples in a batch, N parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor, nn

from optiscope.curvature import top_eigenpairs
from optiscope.objective.risk import EmpiricalRisk
from optiscope.problems import Problem
from optiscope.problems.registry import get

__all__ = ["flat", "leading", "loaded", "new_model", "polish", "risk_on", "sgd"]

Samples = tuple[Tensor, Tensor]
"""Inputs [n, ...] and targets [n]."""


def loaded(
    name: str, data_dir: Path | None, samples: int | None = None
) -> tuple[Problem, Samples, Samples]:
    """A problem, its first ``samples`` training samples, and its test samples."""
    problem = get(name)
    splits = problem.data(data_dir)
    count = len(splits.train) if samples is None else samples
    train = splits.train.select(torch.arange(count))
    test = splits.test.select(torch.arange(len(splits.test)))
    return problem, (train[0], train[1]), (test[0], test[1])


def new_model(problem: Problem, seed: int) -> nn.Module:
    """The problem's model with weights drawn with ``seed``."""
    torch.manual_seed(seed)
    return problem.make_model()


def risk_on(problem: Problem, model: nn.Module, samples: Samples) -> EmpiricalRisk:
    """Mean loss over the samples, in batches of a thousand."""
    batches = list(zip(samples[0].split(1000), samples[1].split(1000), strict=True))
    metrics = {} if problem.metric is None else {problem.metric.name: problem.metric.compute}
    return EmpiricalRisk(model, problem.loss, batches, metrics=metrics)


def flat(model: nn.Module) -> Tensor:
    """All parameters [N], as a copy."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def leading(risk: EmpiricalRisk, k: int) -> dict[str, Any]:
    """The k largest eigenvalues of the Hessian with residuals, errors from data, and cost."""
    pairs = top_eigenpairs(risk.hessian(), k=k, tol=1e-3)
    errors = [] if pairs.data_errors is None else pairs.data_errors.tolist()
    return {
        "eigenvalues": pairs.values.tolist(),
        "residual": float(pairs.residuals.max()),
        "data_errors": errors,
        "converged": bool(pairs.converged.all()),
        "products": pairs.cost.products,
    }


def polish(risk: EmpiricalRisk, evaluations: int) -> None:
    """Bring the model's weights to a minimum by L-BFGS over all samples."""

    def objective(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        loss, gradient = risk.value_and_gradient(torch.from_numpy(point).to(risk.dtype))
        return float(loss), gradient.double().numpy()

    found = optimize.minimize(
        objective,
        risk.parameters.double().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxfun": evaluations, "maxiter": evaluations, "ftol": 1e-12, "gtol": 1e-7},
    )
    if math.isfinite(found.fun):
        state = risk.unflatten(torch.from_numpy(found.x).to(risk.dtype))
        risk.model.load_state_dict(state, strict=False)


def sgd(
    problem: Problem,
    model: nn.Module,
    train: Samples,
    *,
    rate: float,
    batch: int,
    steps: int,
    seed: int,
    momentum: float = 0.0,
    until: float | None = None,
    every: int = 20,
    on_step: Callable[[int], None] = lambda step: None,
) -> tuple[int, float]:
    """Train by SGD in epochs of random order; steps made, and the last full loss looked at.

    Args:
        problem: its loss.
        model: changed in place.
        train: samples; a batch as large as all of them is full-batch descent.
        rate: learning rate.
        batch: samples in a step.
        steps: at most.
        seed: of the order.
        momentum: of SGD.
        until: stop at the first look where the loss over all samples is no larger.
        every: steps between looks.
        on_step: told of each step.
    """
    inputs, targets = train
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
    order: list[Tensor] = []
    value = math.inf
    for step in range(1, steps + 1):
        if not order:
            count = len(inputs) // batch * batch
            order = list(torch.randperm(len(inputs), generator=generator)[:count].split(batch))
        chosen = order.pop()
        optimizer.zero_grad()
        problem.loss(model(inputs[chosen]), targets[chosen]).mean().backward()
        optimizer.step()
        on_step(step)
        if step % every == 0 or step == steps:
            value = _mean_loss(problem, model, train)
            if not math.isfinite(value) or (until is not None and value <= until):
                return step, value
    return steps, value


@torch.no_grad()
def _mean_loss(problem: Problem, model: nn.Module, samples: Samples) -> float:
    """Mean loss over all samples in the model's present mode, a thousand at a time."""
    pieces = zip(samples[0].split(1000), samples[1].split(1000), strict=True)
    total = sum(float(problem.loss(model(x), y).sum()) for x, y in pieces)
    return total / len(samples[0])
