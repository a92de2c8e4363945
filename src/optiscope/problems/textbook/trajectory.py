"""Where an optimizer goes: the parameters and the loss after each of its steps.

Index legend: T steps, D parameters, B samples in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from optiscope.data.samples import Batch, Samples
from optiscope.objective.sample_sums import sum_over_samples
from optiscope.problems.problem import Problem, regularization

__all__ = ["Trajectory", "trajectory"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trajectory:
    """What an optimizer visited.

    Attributes:
        points: parameters before the first and after each step, [T + 1, D].
        losses: mean loss over the training-evaluation samples there, [T + 1].
        gradient_norms: norm of each step's batch gradient, before clipping, [T].
        diverged: whether a loss or a parameter stopped being finite; the arrays end before it.
    """

    points: Array
    losses: Array
    gradient_norms: Array
    diverged: bool

    @property
    def steps(self) -> int:
        """T, the steps that were made."""
        return len(self.points) - 1


def trajectory(
    problem: Problem,
    make_optimizer: Callable[[list[dict[str, Any]]], Optimizer],
    steps: int,
    *,
    start: Sequence[float] | None = None,
    rate: Callable[[int], float] | None = None,
    clip: float | None = None,
    closure: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Trajectory:
    """Train ``problem`` for ``steps`` steps and keep where it went.

    Args:
        problem: with few parameters; every step's parameters are kept.
        make_optimizer: ``make_optimizer(groups)`` -> optimizer, as any of ``torch.optim``.
        steps: T.
        start: initial parameters [D] instead of the model's own.
        rate: learning rate of each step, counted from 0, instead of a constant one.
        clip: largest norm of the gradient.
        closure: the optimizer's ``step`` needs a closure.
        batch_size: the problem's own unless given; batches are drawn without replacement.
        seed: of the initial weights and of the data's order.
        dtype: of parameters and data.

    Raises:
        ValueError: ``clip`` is not positive and finite.
    """
    if clip is not None and not 0 < clip < math.inf:
        raise ValueError(f"the gradient's norm is clipped at a positive number, got {clip}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = problem.make_model().to(dtype)
        parameters = [p for p in model.parameters() if p.requires_grad]
        if start is not None:
            _start_at(parameters, start, dtype)
        groups = problem.param_groups(model)
        own_words = ("l2", "lr_scale")
        optimizer = make_optimizer(
            [{k: v for k, v in group.items() if k not in own_words} for group in groups]
        )
        splits = problem.data(None)
        batches = _Batches(splits.train, batch_size or problem.batch_size, seed, dtype)
        everything = _in_dtype(_all(splits.train_eval), dtype)
        points, losses = [_point(parameters)], [_loss(problem, model, everything)]
        norms: list[float] = []
        for step in range(steps):
            batch = batches.next()
            norm: list[float] = []

            def objective(batch: Batch = batch, norm: list[float] = norm) -> Tensor:
                optimizer.zero_grad()
                loss = problem.loss(model(batch.inputs), batch.targets).mean()
                penalty = regularization(groups)
                total = loss if penalty is None else loss + penalty
                total.backward()
                gradients = [p.grad for p in parameters if p.grad is not None]
                norm.append(float(nn.utils.get_total_norm(gradients)))
                if clip is not None and norm[-1] > clip:
                    for gradient in gradients:
                        gradient *= clip / norm[-1]
                return total

            if rate is not None:
                for group in optimizer.param_groups:
                    group["lr"] = rate(step)
            if closure:
                step_with: Any = optimizer.step  # torch types a closure as returning a float
                step_with(objective)
            else:
                objective()
                optimizer.step()
            point, loss = _point(parameters), _loss(problem, model, everything)
            if not (np.isfinite(point).all() and np.isfinite(loss)):
                return _trajectory(points, losses, norms, diverged=True)
            points.append(point)
            losses.append(loss)
            norms.append(norm[0])
    return _trajectory(points, losses, norms, diverged=False)


def _trajectory(
    points: list[Array], losses: list[float], norms: list[float], *, diverged: bool
) -> Trajectory:
    return Trajectory(np.array(points), np.array(losses), np.array(norms), diverged)


class _Batches:
    """Batches of an endless sequence of epochs, each in a new random order."""

    def __init__(self, samples: Samples, size: int, seed: int, dtype: torch.dtype) -> None:
        if not 1 <= size <= len(samples):
            raise ValueError(
                f"batch_size must be from 1 to the {len(samples)} training samples, got {size}"
            )
        self.samples, self.size, self.dtype = samples, size, dtype
        self.order = torch.Generator().manual_seed(seed)
        self.waiting: list[Tensor] = []
        self.whole = _in_dtype(_all(samples), dtype) if size == len(samples) else None

    def next(self) -> Batch:
        if self.whole is not None:
            return self.whole
        if not self.waiting:
            order = torch.randperm(len(self.samples), generator=self.order)
            whole = len(self.samples) // self.size
            self.waiting = list(order[: whole * self.size].view(whole, self.size).flip(0))
        return _in_dtype(self.samples.select(self.waiting.pop()), self.dtype)


def _start_at(parameters: list[nn.Parameter], start: Sequence[float], dtype: torch.dtype) -> None:
    count = sum(p.numel() for p in parameters)
    if len(start) != count:
        raise ValueError(f"start must have {count} numbers, one a parameter, got {len(start)}")
    nn.utils.vector_to_parameters(torch.tensor(start, dtype=dtype), parameters)


def _all(samples: Samples) -> Batch:
    return samples.select(torch.arange(len(samples)))


def _in_dtype(batch: Batch, dtype: torch.dtype) -> Batch:
    return Batch(*(t.to(dtype) if t.is_floating_point() else t for t in batch))


def _point(parameters: list[nn.Parameter]) -> Array:
    point: Array = nn.utils.parameters_to_vector(parameters).detach().double().numpy().copy()
    return point


@torch.no_grad()
def _loss(problem: Problem, model: nn.Module, batch: Batch) -> float:
    model.eval()
    losses = problem.loss(model(batch.inputs), batch.targets)
    model.train()
    samples = len(batch.targets)
    return sum_over_samples(losses, samples).item() / samples
