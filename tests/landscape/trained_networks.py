"""Networks trained for a few seconds, and what a call must not change."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from optiscope import EmpiricalRisk
from optiscope.problems.problem import Problem
from optiscope.problems.risk import risk_of

Solutions = tuple[EmpiricalRisk, list[dict[str, Tensor]]]


@cache
def trained(
    problem: Problem, seeds: tuple[int, ...], epochs: int, rate: float, samples: int | None = None
) -> Solutions:
    """The risk of a digits problem and solutions of momentum SGD from some seeds."""
    data = problem.data(None).train
    solutions, model = [], None
    with torch.random.fork_rng():
        for seed in seeds:
            torch.manual_seed(seed)
            model = problem.make_model()
            optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
            for epoch in range(epochs):
                for group in optimizer.param_groups:
                    group["lr"] = rate * (1 - epoch / epochs)
                for batch in torch.randperm(len(data)).split(64)[:-1]:
                    inputs, targets = data.select(batch)
                    optimizer.zero_grad()
                    problem.loss(model(inputs), targets).mean().backward()
                    optimizer.step()
            solutions.append({k: v.clone() for k, v in model.state_dict().items()})
    assert model is not None
    return risk_of(problem, model=model, samples=samples), solutions


def everything_about(risk: EmpiricalRisk) -> Any:
    """All that a call must leave as it was: tensors, gradients, modes, generators."""
    model = risk.model
    return (
        {k: v.clone() for k, v in model.state_dict().items()},
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [m.training for m in model.modules()],
        [getattr(m, "momentum", None) for m in model.modules()],
        torch.get_rng_state(),
    )


def same(left: Any, right: Any) -> bool:
    """Whether two nested values are equal, tensors bit for bit."""
    if isinstance(left, Tensor):
        return bool(torch.equal(left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
