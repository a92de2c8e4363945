"""Problems at hand from batches of 8 to all samples: it trains, or says why not."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

from optiscope import problems
from optiscope.optim.preconditioned_sgd import AdaptiveSGD, OnlyAdaptiveSGD, PreconditionedSGD

NAMES = ["digits_logreg", "digits_mlp", "quadratic_deep", "two_d_rosenbrock"]
MORE = [
    "digits_conv",
    "digits_resnet",
    "digits_rnn",
    "digits_autoencoder",
    "two_d_beale",
    "two_d_branin",
    "textbook_adding",
    "textbook_ill_conditioned",
    "textbook_noisy_quadratic",
    "textbook_saddle",
]
VARIANTS = [PreconditionedSGD, AdaptiveSGD, OnlyAdaptiveSGD]
WHOLE = 10**9
CASES = [
    *((name, make, batch) for name in NAMES for make in VARIANTS for batch in (8, WHOLE)),
    *((name, PreconditionedSGD, 8) for name in MORE),
]


def train(make: Any, name: str, batch: int, scale: float, steps: int) -> tuple[float, float, Any]:
    """First and last training loss over all samples, and the optimizer."""
    problem = problems.get(name)
    samples = problem.data(None).train
    batch = min(batch, len(samples))
    torch.manual_seed(0)
    model = problem.make_model()
    opt = make(model.parameters(), est_rank=2, num_observations=3, prior_iterations=4)
    every = samples.select(torch.arange(min(len(samples), 1000)))

    def loss() -> float:
        with torch.no_grad():
            return float(problem.loss(model(every.inputs), every.targets).mean())

    first = loss()
    for _ in range(steps):
        x, y = samples.select(torch.randperm(len(samples))[:batch])
        opt.zero_grad()
        opt.backward(scale * problem.loss(model(x), y).mean())
        opt.step()
        rates = opt.get_log()["step_size"]
        assert all(r >= 0 and math.isfinite(r) for r in rates)
    return first, loss(), opt


@pytest.mark.parametrize(("name", "make", "batch"), CASES)
def test_it_trains(name: str, make: Any, batch: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, last, opt = train(make, name, batch, 1.0, 60)
    assert last < first
    assert opt.get_log()["estimates"] > 0


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("name", ["digits_mlp", "quadratic_deep"])
def test_it_trains_at_any_scale_of_the_loss(name: str, scale: float) -> None:
    first, last, opt = train(PreconditionedSGD, name, 32, scale, 60)
    assert last < first
    expected = train(PreconditionedSGD, name, 32, 1.0, 60)[2].get_log()["step_size"][0]
    assert opt.get_log()["step_size"][0] * scale == pytest.approx(expected, rel=0.05)
