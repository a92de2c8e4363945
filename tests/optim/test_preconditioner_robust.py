"""Problems at hand from batches of 8 to all samples: it trains, or says why not."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from optiscope import problems
from optiscope.optim.preconditioner.variants import (
    AdaptiveSGD,
    OnlyAdaptiveSGD,
    PreconditionedSGD,
    PreconditionedTunedSGD,
)

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


def test_a_rate_from_a_plateau_does_not_blow_up_the_net(real_data: Path) -> None:
    """With these seeds weights left the plateau at a rate near 1.6, and overflowed or stuck."""
    problem = problems.get("mnist_mlp")
    samples = problem.data(real_data).train
    for seed in (1, 4):
        torch.manual_seed(seed)
        model = problem.make_model()
        opt = AdaptiveSGD(model.parameters(), estimate_every=390)
        losses = []
        for rows in torch.randperm(len(samples)).split(128)[:150]:
            x, y = samples.select(rows)
            loss = problem.loss(model(x), y).mean()
            opt.zero_grad()
            opt.backward(loss)
            opt.step()
            losses.append(float(loss.detach()))
        assert max(losses) < 10
        assert sum(losses[-20:]) / 20 < 1.8


def test_an_estimate_made_in_trouble_is_renewed_soon_and_its_rate_may_recover() -> None:
    w = torch.ones(5, dtype=torch.float64, requires_grad=True)
    opt = AdaptiveSGD([w], estimate_every=1000)
    rates = []
    for t in range(400):
        curvature = 400.0 if 20 <= t < 40 else 1.0
        noise = 0.1 * torch.randn(5, dtype=torch.float64)
        opt.zero_grad()
        opt.backward(0.5 * curvature * (w + noise).square().sum())
        opt.step()
        rates.append(opt.get_log()["step_size"][0])
    assert rates[19] == pytest.approx(1, rel=0.2)
    assert min(rates) < 2 / 400
    assert rates[-1] == pytest.approx(1, rel=0.4)
    assert float(w.detach().norm()) < 2


def test_a_given_first_rate_holds_until_the_second_regular_estimation() -> None:
    w = torch.ones(5, dtype=torch.float64, requires_grad=True)
    opt = AdaptiveSGD([w], lr=0.002, estimate_every=100)
    for t in range(100):
        curvature = 1.0 if t < 12 else 300.0  # the constructed rate would be far too high
        noise = 0.1 * torch.randn(5, dtype=torch.float64)
        opt.zero_grad()
        opt.backward(0.5 * curvature * (w + noise).square().sum())
        opt.step()
        assert opt.get_log()["step_size"] == [0.002]
    assert opt.get_log()["estimates"] == 1


def test_a_fixed_rate_is_not_watched_for() -> None:
    torch.manual_seed(0)
    w = torch.ones(5, dtype=torch.float64, requires_grad=True)
    opt = PreconditionedTunedSGD([w], lr=0.002, estimate_every=200)
    for t in range(200):
        opt.zero_grad()
        opt.backward(0.5 * (1.0 if t < 20 else 100.0) * w.square().sum())
        opt.step()
    assert opt.get_log()["estimates"] == 1


def test_a_batch_that_overflowed_leaves_nothing_behind() -> None:
    """A scaler skips the step of such a batch; its graph must not enter the next product."""
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    opt = AdaptiveSGD([w], prior_iterations=2, num_observations=1)
    opt.backward(1e3 * w.square().sum())  # no step follows
    for _ in range(4):
        opt.zero_grad()
        opt.backward(0.5 * w.square().sum())
        opt.step()
    assert opt.get_log()["prior_mean"] == pytest.approx(1)
