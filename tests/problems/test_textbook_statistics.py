"""Textbook difficulties of noise and of long sequences, measured against their theory."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam

from optiscope.problems.textbook.adding import (
    MEMORYLESS_LOSS,
    SequenceReader,
    adding,
    state_gradient_norms,
)
from optiscope.problems.textbook.noisy_quadratic import (
    best_rate,
    excess_after,
    excess_of_constant_rate,
    noisy_quadratic,
    worst_curvature,
    worst_excess_after,
)
from optiscope.problems.textbook.repeated_matrix import (
    gradient_norms_back,
    largest_eigenvalue,
    minima,
    textbook_repeated_matrix,
)
from optiscope.problems.textbook.trajectory import trajectory

D = 500


def _measured(points: np.ndarray, curvature: float) -> np.ndarray:
    """Mean over the independent parameters of ½ h θ² after each step."""
    return 0.5 * curvature * (points**2).mean(1)


# A mean over D squares of normals has relative standard deviation √(2/D) = 0.063.
FOUR_DEVIATIONS = 4 * math.sqrt(2 / D)


@pytest.mark.parametrize(("curvature", "noise"), [(1.0, 1.0), (0.5, 2.0)])
def test_best_rates_leave_an_excess_of_one_over_k(curvature: float, noise: float) -> None:
    problem = noisy_quadratic(curvature, noise)
    rates = partial(best_rate, curvature=curvature, noise=noise)
    walked = trajectory(problem, partial(SGD, lr=1.0), 800, rate=rates)
    measured = _measured(walked.points, curvature)
    steps = np.array([1, 10, 100, 800])
    expected = [excess_after(int(k), curvature, noise) for k in steps]
    np.testing.assert_allclose(measured[steps], expected, rtol=FOUR_DEVIATIONS)
    late = np.arange(100, 801)
    slope = np.polyfit(np.log(late), np.log(measured[late]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.15)


def test_no_other_rate_does_better_in_one_step() -> None:
    error, curvature, noise = 0.3, 0.7, 1.3
    step = (1 / error - 1) * (noise / curvature) ** 2
    rate = curvature * error / (curvature**2 * error + noise**2)
    assert best_rate(step, curvature, noise) == pytest.approx(rate)  # type: ignore[arg-type]
    rates = np.linspace(0, 2, 2001)
    after = (1 - rates * curvature) ** 2 * error + rates**2 * noise**2
    assert rates[after.argmin()] == pytest.approx(rate, abs=1e-3)


@pytest.mark.parametrize("steps", [25, 100, 400])
def test_the_worst_curvature_leaves_one_over_root_k(steps: int) -> None:
    curvatures = np.logspace(-4, 1, 2001)
    excess = [excess_after(steps, h) for h in curvatures]
    assert max(excess) == pytest.approx(worst_excess_after(steps), rel=1e-4)
    assert curvatures[int(np.argmax(excess))] == pytest.approx(worst_curvature(steps), rel=0.01)
    h = worst_curvature(steps)
    walked = trajectory(
        noisy_quadratic(h), partial(SGD, lr=1.0), steps, rate=partial(best_rate, curvature=h)
    )
    measured = _measured(walked.points, h)[-1]
    assert measured == pytest.approx(0.25 / math.sqrt(steps), rel=FOUR_DEVIATIONS)


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_a_constant_rate_stops_at_its_floor(rate: float) -> None:
    walked = trajectory(noisy_quadratic(), partial(SGD, lr=rate), 200)
    measured = _measured(walked.points, 1.0)
    for step in (1, 20, 60):
        expected = excess_of_constant_rate(step, rate)
        assert measured[step] == pytest.approx(expected, rel=FOUR_DEVIATIONS)
    floor = 0.5 * rate / (2 - rate)
    assert measured[100:].mean() == pytest.approx(floor, rel=0.05)


# Long-term dependencies.


@pytest.mark.parametrize("radius", [0.9, 1.0, 1.1])
def test_the_power_method_finds_the_largest_eigenvalue(radius: float) -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    eigenvalues = torch.linalg.eigvals(matrix)
    matrix *= radius / eigenvalues.abs().max()
    assert largest_eigenvalue(matrix) == pytest.approx(radius, rel=2e-3)
    turn = radius * torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    assert largest_eigenvalue(turn) == pytest.approx(radius, rel=1e-12)


@pytest.mark.parametrize("radius", [0.9, 1.1])
def test_gradients_vanish_and_explode_by_the_largest_eigenvalue(radius: float) -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix = matrix @ matrix.T  # a real spectrum: no oscillation
    matrix *= radius / torch.linalg.eigvalsh(matrix).max()
    last = torch.randn(12, generator=generator, dtype=torch.float64)
    norms = gradient_norms_back(matrix, last, 200)
    predicted = largest_eigenvalue(matrix)
    assert (norms[200] / norms[100]).item() ** 0.01 == pytest.approx(predicted, rel=1e-6)
    first = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    state = first
    for _ in range(50):
        state = matrix @ state
    (gradient,) = torch.autograd.grad(state @ last, first)
    assert gradient.norm().item() == pytest.approx(norms[50].item(), rel=1e-9)


@pytest.mark.parametrize("point", [(0.5, 0.3), (0.9, -0.2), (1.05, 0.1)])
def test_gradient_of_the_repeated_turn(point: tuple[float, float]) -> None:
    z, steps = complex(*point), 20
    walked = trajectory(textbook_repeated_matrix, partial(SGD, lr=1e-9), 1, start=point)
    assert walked.losses[0] == pytest.approx(abs(z**steps - 1j) ** 2, rel=1e-5)
    expected = 2 * steps * abs(z) ** (steps - 1) * abs(z**steps - 1j)
    assert walked.gradient_norms[0] == pytest.approx(expected, rel=1e-5)


def test_the_repeated_turn_has_a_minimum_for_each_step() -> None:
    for point in minima():
        assert math.hypot(*point) == pytest.approx(1.0)
        assert abs(complex(*point) ** 20 - 1j) < 1e-12
    near = minima()[0]
    start = (near[0] * 1.01, near[1] * 1.01)
    walked = trajectory(textbook_repeated_matrix, partial(SGD, lr=1e-3), 200, start=start)
    np.testing.assert_allclose(walked.points[-1], near, atol=1e-4)


def test_the_adding_problem_has_two_marks_and_the_loss_of_no_memory() -> None:
    samples = adding(20).data(None).train
    inputs, targets = samples.select(torch.arange(len(samples)))
    assert (inputs[..., 1].sum(1) == 2).all()
    assert (inputs[:, :10, 1].sum(1) == 1).all()
    torch.testing.assert_close((inputs[..., 0] * inputs[..., 1]).sum(1, keepdim=True), targets)
    assert (targets - 1).square().mean().item() == pytest.approx(MEMORYLESS_LOSS, rel=0.05)


@pytest.mark.parametrize("gain", [0.7, 1.0])
def test_state_gradients_shrink_at_least_by_the_gain_of_the_recurrent_weights(gain: float) -> None:
    model = SequenceReader(32, gain).double()
    assert largest_eigenvalue(model.recur.weight.detach()) == pytest.approx(gain, rel=1e-6)
    sequences = adding(30).data(None).train.select(torch.arange(20)).inputs.double()
    norms = state_gradient_norms(model, sequences, torch.zeros(20, 1)).numpy()
    factors = norms[:-1] / norms[1:]
    assert (factors <= gain * (1 + 1e-9)).all()
    # With tiny inputs the units are linear and the factor is the gain itself.
    tiny = state_gradient_norms(model, 1e-4 * sequences, torch.zeros(20, 1)).numpy()
    np.testing.assert_allclose(tiny[:-1] / tiny[1:], gain, rtol=1e-5)


@pytest.mark.slow
def test_a_recurrent_network_learns_to_add_sooner_when_gradients_reach_back() -> None:
    make = partial(Adam, lr=2e-3)
    remembering = trajectory(adding(20, gain=1.0), make, 800, dtype=torch.float32)
    forgetting = trajectory(adding(20, gain=0.1), make, 800, dtype=torch.float32)
    assert remembering.losses[-1] < 0.3 * MEMORYLESS_LOSS
    assert forgetting.losses[-1] > 0.7 * MEMORYLESS_LOSS
