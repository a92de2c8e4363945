"""Convex problems, where the method belongs: iteration counts against published and tuned ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from optiscope import problems
from optiscope.optim.preconditioner.variants import PreconditionedSGD

L2 = 1e-3


@pytest.fixture(scope="module")
def threes_and_fives(real_data: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """MNIST digits 3 and 5, pixels in [0, 1] and targets 0 and 1."""
    data = problems.get("mnist_logreg").data(real_data)
    parts = {"train": (data.train, data.valid), "test": (data.test,)}
    out = {}
    for name, splits in parts.items():
        batches = [split.select(torch.arange(len(split))) for split in splits]
        x = torch.cat([b.inputs.flatten(1) for b in batches])
        y = torch.cat([b.targets for b in batches])
        kept = (y == 3) | (y == 5)
        out[name] = (x[kept], (y[kept] == 5).float())
    return out


@pytest.mark.parametrize("batch", [None, 256])
def test_the_papers_logistic_regression(
    threes_and_fives: dict[str, tuple[Tensor, Tensor]], batch: int | None
) -> None:
    """Every step counts as an iteration, those of the estimation included."""
    (x, y), (test_x, test_y) = threes_and_fives["train"], threes_and_fives["test"]
    assert len(x) == 11_552
    model = nn.Linear(784, 1)
    for p in model.parameters():
        nn.init.zeros_(p)
    opt = PreconditionedSGD(
        model.parameters(),
        est_rank=2,
        num_observations=3,
        prior_iterations=1,
        power_iterations=0,
        weight_decay=L2,
    )
    g = torch.Generator().manual_seed(0)
    losses, accuracies = [], []
    for _ in range(30 if batch is None else 120):
        rows = (
            torch.arange(len(x)) if batch is None else torch.randint(len(x), (batch,), generator=g)
        )

        def closure(bx: Tensor = x[rows], by: Tensor = y[rows]) -> Tensor:
            opt.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(model(bx)[:, 0], by)
            loss.backward()
            return loss

        opt.step(closure)
        with torch.no_grad():
            squares = sum(p.square().sum() for p in model.parameters())
            loss = functional.binary_cross_entropy_with_logits(model(x)[:, 0], y)
            losses.append(float(loss + 0.5 * L2 * squares))
            right = (model(test_x)[:, 0] > 0) == (test_y > 0)
            accuracies.append(float(right.float().mean()))

    def first(reached: list[bool]) -> int:
        return reached.index(True) + 1

    assert first([v <= 0.3 for v in losses]) <= 6  # SGD: 28
    assert first([v <= 0.2 for v in losses]) <= 24  # SGD: 109
    assert first([v >= 0.90 for v in accuracies]) <= 6  # SGD: 20
    assert first([v >= 0.945 for v in accuracies]) <= 24  # SGD: 77
    if batch is not None:  # 120 iterations
        assert losses[-1] <= 0.138  # SGD: 0.195
        assert accuracies[-1] >= 0.957


def gradients_to_reach(
    make: Callable[..., Any], steps: int, target: float
) -> tuple[int | None, float]:
    """Evaluations of full-batch gradients until the digits' training loss, and the last loss."""
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    model = nn.Linear(64, 10)
    for p in model.parameters():
        nn.init.zeros_(p)
    opt = make(model.parameters())
    calls, reached = 0, None
    for _ in range(steps):

        def closure() -> Tensor:
            nonlocal calls
            calls += 1
            opt.zero_grad()
            squares = sum(p.square().sum() for p in model.parameters())
            loss = functional.cross_entropy(model(x), y) + 0.5 * L2 * squares
            loss.backward()
            return loss

        value = float(opt.step(closure).detach())
        if reached is None and value <= target:
            reached = calls
    return reached, value


def test_digits_in_a_quarter_of_tuned_sgds_gradients() -> None:
    finals = [
        gradients_to_reach(lambda p, r=rate: torch.optim.SGD(p, lr=r), 1000, 0.0)[1]
        for rate in (1.78, 3.16, 5.62)
    ]
    settings = {
        "est_rank": 5,
        "num_observations": 8,
        "prior_iterations": 1,
        "power_iterations": 3,
    }
    reached, _ = gradients_to_reach(
        lambda p: PreconditionedSGD(
            p, **settings, momentum=0.9, nesterov=True, hessian="difference"
        ),
        250,
        min(finals),
    )
    assert reached is not None
    assert reached <= 250
