"""The functions of two variables: known minima, and noise that leaves the expectation alone."""

from __future__ import annotations

import math

import pytest
import torch

from optiscope import problems

MINIMA = [
    ("two_d_rosenbrock", (1.0, 1.0), 0.0),
    ("two_d_beale", (3.0, 0.5), 0.0),
    ("two_d_branin", (-math.pi, 12.275), 0.397887),
    ("two_d_branin", (math.pi, 2.275), 0.397887),
    ("two_d_branin", (3 * math.pi, 2.475), 0.397887),
]


@pytest.mark.parametrize(("name", "place", "value"), MINIMA)
def test_minimum(name: str, place: tuple[float, float], value: float) -> None:
    model = problems.get(name).make_model().double()
    model.point.data = torch.tensor(place, dtype=torch.float64)
    objective = model(torch.zeros(1, 2, dtype=torch.float64)).sum()
    (gradient,) = torch.autograd.grad(objective, [model.point], create_graph=True)
    assert objective.item() == pytest.approx(value, abs=1e-6)
    assert gradient.abs().max().item() < 2e-5
    rows = [torch.autograd.grad(g, [model.point], retain_graph=True)[0] for g in gradient]
    assert torch.linalg.eigvalsh(torch.stack(rows)).min().item() > 0


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("two_d_rosenbrock", (-0.5, 1.5)),
        ("two_d_beale", (-4.5, 4.5)),
        ("two_d_branin", (2.5, 12.5)),
    ],
)
def test_start_and_first_loss(name: str, start: tuple[float, float]) -> None:
    problem = problems.get(name)
    model, splits = problem.make_model(), problem.data(None)
    assert model.point.tolist() == list(start)
    exact = splits.test.select(torch.arange(len(splits.test)))
    assert model(exact.inputs).mean().item() == pytest.approx(problem.first_loss, rel=1e-6)
    noisy = splits.train.select(torch.arange(10_000)).inputs
    assert noisy.mean(0).abs().max() < 0.03  # three standard errors
    assert noisy.std(0).tolist() == pytest.approx([1.0, 1.0], abs=0.03)
    spread = model(noisy).mean().item() - problem.first_loss
    assert spread == pytest.approx((noisy.mean(0) @ model.point).item(), abs=2e-2)
