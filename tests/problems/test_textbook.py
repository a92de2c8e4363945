"""The textbook difficulties against their known answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from optiscope.data.samples import Splits, TensorSamples
from optiscope.optim.baselines.saddle_free_newton import SaddleFreeNewton
from optiscope.problems import get
from optiscope.problems.textbook import plateau, redundancy, saddle, symmetry, wrong_side
from optiscope.problems.textbook.cliff import cliff_edge, edge_gradient, textbook_cliff
from optiscope.problems.textbook.ill_conditioned import (
    best_gradient_descent,
    best_heavy_ball,
    ill_conditioned_quadratic,
)
from optiscope.problems.textbook.loss_grid import loss_grid
from optiscope.problems.textbook.surface import paired_noise
from optiscope.problems.textbook.trajectory import trajectory
from optiscope.study.single import run


def sgd(lr: float, **settings: Any) -> Callable[[list[dict[str, Any]]], Optimizer]:
    return partial(SGD, lr=lr, **settings)


# What the surfaces have in common: the whole batch is exact, a part of it is noisy.


def test_paired_noise_cancels_exactly_in_single_precision() -> None:
    noise = paired_noise(16, 3, 0.125, seed=0).inputs
    order = torch.randperm(16)
    assert torch.equal(noise[order].sum(0), torch.zeros(3))
    assert noise.std().item() == pytest.approx(0.125, rel=0.4)
    assert len(noise.unique(dim=0)) == 16


def test_the_default_batch_gives_the_exact_gradient_and_one_sample_a_noisy_one() -> None:
    problem = get("textbook_ill_conditioned")
    exact = trajectory(problem, sgd(0.5), 10, dtype=torch.float32)
    expected = 0.5 ** np.arange(11)
    np.testing.assert_array_equal(exact.points[:, 0], expected)  # powers of two: no rounding
    noisy = trajectory(problem, sgd(0.5), 10, batch_size=1)
    assert 0.01 < np.abs(noisy.points[1:, 0] - expected[1:]).max() < 1
    assert (noisy.points == trajectory(problem, sgd(0.5), 10, batch_size=1).points).all()


def test_the_loop_trains_a_surface_as_a_trajectory_does() -> None:
    done = run("textbook_plateau", "sgd", hyperparameters={"lr": 1.0}, epochs=50, threads=1)
    losses = [m.value for m in done.metrics if (m.split, m.name) == ("test", "loss")]
    walked = trajectory(get("textbook_plateau"), sgd(1.0), 50)
    np.testing.assert_allclose(losses, walked.losses, rtol=1e-5)


def test_trajectory_keeps_what_an_optimizer_visited() -> None:
    problem = ill_conditioned_quadratic(4.0)
    closed = trajectory(problem, torch.optim.LBFGS, 3, closure=True)
    assert closed.losses[-1] < 1e-8
    lost = trajectory(problem, sgd(1e200), 50)
    assert lost.diverged
    assert np.isfinite(lost.losses).all()
    assert lost.steps < 50
    scheduled = trajectory(problem, sgd(1.0), 2, rate=lambda step: 0.5 / (step + 1))
    np.testing.assert_allclose(scheduled.points[:, 0], [1, 0.5, 0.375])
    with pytest.raises(ValueError, match="start must have 2 numbers, one a parameter, got 1"):
        trajectory(problem, sgd(1.0), 1, start=(1.0,))
    with pytest.raises(ValueError, match="from 1 to the 16 training samples, got 17"):
        trajectory(problem, sgd(1.0), 1, batch_size=17)


def test_loss_grid_is_the_loss_at_each_point() -> None:
    u, v = np.linspace(-1, 1, 3), np.linspace(-2, 2, 4)
    grid = loss_grid(ill_conditioned_quadratic(4.0), u, v)
    np.testing.assert_allclose(grid, 0.5 * (u[None, :] ** 2 + v[:, None] ** 2 / 4), atol=1e-12)
    with pytest.raises(ValueError, match="needs a problem with 2 parameters, got textbook_one"):
        loss_grid(redundancy.textbook_one_weight, u, v)


def test_loss_grid_moves_a_module_that_stands_at_two_places_at_both() -> None:
    layer = nn.Linear(1, 1).requires_grad_(True)
    kept = nn.Sequential(layer, layer)
    problem = replace(
        ill_conditioned_quadratic(4.0),
        make_model=lambda: kept,
        loss=lambda outputs, targets: outputs.square().flatten(),
        data=lambda folder: Splits(*[TensorSamples(torch.full((4, 1), 3.0), torch.zeros(4))] * 4),
    )
    before = [p.detach().clone() for p in kept.parameters()]
    u, v = np.linspace(-1, 1, 3), np.linspace(-2, 2, 4)
    w, b = u[None, :], v[:, None]
    np.testing.assert_allclose(loss_grid(problem, u, v), (w * (3 * w + b) + b) ** 2, atol=1e-12)
    assert all(
        torch.equal(p, old.double()) for p, old in zip(kept.parameters(), before, strict=True)
    )
    assert kept[0].weight is kept[1].weight is layer.weight


# Ill-conditioned quadratic.


@pytest.mark.parametrize("kappa", [1.0, 4.0, 100.0])
def test_tuned_gradient_descent_contracts_as_the_condition_number_says(kappa: float) -> None:
    tuned = best_gradient_descent(kappa)
    walked = trajectory(ill_conditioned_quadratic(kappa), sgd(tuned.lr), 20)
    ratio = walked.losses[1:] / np.maximum(walked.losses[:-1], 1e-300)
    np.testing.assert_allclose(ratio, ((kappa - 1) / (kappa + 1)) ** 2, atol=1e-9)
    for other in (0.98, 1.01):
        if kappa == 100:
            worse = trajectory(ill_conditioned_quadratic(kappa), sgd(other * tuned.lr), 200)
            assert worse.losses[-1] / worse.losses[-2] > (99 / 101) ** 2


def test_heavy_ball_contracts_by_the_root_of_the_condition_number() -> None:
    kappa = 100.0
    tuned = best_heavy_ball(kappa)
    walked = trajectory(
        ill_conditioned_quadratic(kappa), sgd(tuned.lr, momentum=tuned.momentum), 120
    )
    distance = np.linalg.norm(walked.points, axis=1)
    # The two roots coincide, so that the error is a line in k times 9/11 to the k.
    slope = (distance[120] / 121) / (distance[60] / 61)
    assert slope ** (1 / 60) == pytest.approx(9 / 11, rel=2e-3)
    assert (
        distance[120]
        < 1e-8
        < trajectory(
            ill_conditioned_quadratic(kappa), sgd(best_gradient_descent(kappa).lr), 120
        ).losses[-1]
    )


# Symmetry.


def test_equivalent_points_compute_the_same_function() -> None:
    points = list(symmetry.equivalent_points((2.0, 0.5), (1.0, 1.0)))
    assert len(set(points)) == 2**2 * math.factorial(2)
    inputs = torch.linspace(-3, 3, 20).unsqueeze(1)
    outputs = torch.stack([symmetry.TanhUnits(w, v)(inputs) for w, v in points])
    torch.testing.assert_close(outputs, outputs[:1].expand_as(outputs))
    assert len(list(symmetry.equivalent_points((1.0, 2.0, 3.0), (1.0, 1.0, 1.0)))) == 8 * 6


def test_descent_from_equivalent_starts_ends_at_the_equivalent_minima() -> None:
    problem = symmetry.textbook_symmetry
    starts = [w + v for w, v in symmetry.equivalent_points((1.5, 0.2), (0.8, 1.2))]
    make = partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", tolerance_change=1e-15)
    walks = [trajectory(problem, make, 6, start=start, closure=True) for start in starts]
    minima = [w + v for w, v in symmetry.equivalent_points((2.0, 0.5), (1.0, 1.0))]
    ends = sorted(tuple(np.round(walk.points[-1], 2)) for walk in walks)
    assert ends == sorted(tuple(np.round(m, 2)) for m in minima)
    for walk in walks:
        np.testing.assert_allclose(walk.losses, walks[0].losses, rtol=1e-3, atol=1e-9)


def test_between_two_equivalent_minima_lies_a_barrier() -> None:
    between = np.linspace(0, 1, 11)
    grid = loss_grid(symmetry.textbook_symmetry_of_order, 2 - 1.5 * between, 0.5 + 1.5 * between)
    straight = np.diag(grid)
    assert straight[0] < 1e-10
    assert straight[-1] < 1e-10
    assert straight[5] == straight.max() > 0.01


# Saddle.


def test_curvatures_at_the_saddle() -> None:
    hessian = torch.autograd.functional.hessian(
        saddle.textbook_saddle.make_model().function, torch.zeros(2)
    )
    torch.testing.assert_close(torch.linalg.eigvalsh(hessian), torch.tensor([-0.05, 1.0]))
    for point in saddle.MINIMA:
        value = saddle.textbook_saddle.make_model().function(torch.tensor(point))
        assert value.item() == pytest.approx(-0.05 / 4)


def _leaves(points: np.ndarray) -> int:
    """First step with |u - v| / √2 of at least 0.1, or the number of points."""
    away = np.abs(points[:, 0] - points[:, 1]) / math.sqrt(2) >= 0.1
    return int(away.argmax()) if away.any() else len(away)


@pytest.mark.parametrize("lr", [0.5, 1.0])
def test_gradient_descent_stalls_at_the_saddle_as_long_as_predicted(lr: float) -> None:
    walked = trajectory(saddle.textbook_saddle, sgd(lr), 300)
    predicted = saddle.escape_steps(1 + 0.05 * lr)
    assert _leaves(walked.points) == pytest.approx(predicted, rel=0.02)
    assert walked.gradient_norms.min() < 1e-4, "the gradient vanishes on the way"


def test_saddle_free_newton_leaves_at_once_where_first_order_methods_and_newton_do_not() -> None:
    problem = saddle.textbook_saddle
    free = trajectory(problem, SaddleFreeNewton, 25, closure=True)
    assert _leaves(free.points) == math.ceil(saddle.escape_steps(2.0)) == 7
    assert min(math.dist(free.points[-1], m) for m in saddle.MINIMA) < 1e-3
    newton = trajectory(problem, partial(SaddleFreeNewton, absolute=False), 25, closure=True)
    assert np.linalg.norm(newton.points[-1]) < 1e-6, "Newton's method goes to the saddle"
    for make in (sgd(1.0), sgd(0.5, momentum=0.9), partial(Adam, lr=0.03)):
        assert _leaves(trajectory(problem, make, 25).points) > 25


def test_saddle_free_newton_in_the_loop() -> None:
    done = run("textbook_saddle", "optiscope.optim.saddle_free_newton:SPEC", epochs=25, threads=1)
    assert done.final["test_loss"] == pytest.approx(-0.0125, rel=1e-3)
    assert done.counts["gradient_evaluations"] == 25 * 5
    optimizer = SaddleFreeNewton([nn.Parameter(torch.zeros(2))])
    with pytest.raises(ValueError, match="needs a closure"):
        optimizer.step()
    with pytest.raises(ValueError, match="lr, difference and radius must be positive"):
        SaddleFreeNewton([nn.Parameter(torch.zeros(2))], lr=0.0)


# Plateau, wrong side, redundancy.


@pytest.mark.parametrize("lr", [0.05, 0.5])
def test_crossing_a_plateau_takes_the_exponential_integral(lr: float) -> None:
    radius = np.linspace(1.0, 3.0, 100_001)
    predicted = plateau.crossing_time(3.0, 1.0)
    assert predicted == pytest.approx(np.trapezoid(np.exp(radius**2 / 2) / radius, radius))
    walked = trajectory(plateau.textbook_plateau, sgd(lr), int(25 / lr), start=(-2.4, 1.8))
    distance = np.linalg.norm(walked.points, axis=1)
    crossed = float((distance > 1).sum()) * lr
    assert crossed == pytest.approx(predicted, rel=0.01 + lr / 4)


def test_the_plateau_holds_gradient_descent_and_not_methods_that_ignore_its_length() -> None:
    slow = trajectory(plateau.textbook_plateau, sgd(1.0), 200)
    assert slow.losses[-1] > 0.9
    assert trajectory(plateau.textbook_plateau, partial(Adam, lr=0.1), 200).losses[-1] < 0.01


def test_descent_on_the_wrong_side_never_gets_below_its_limit() -> None:
    problem = wrong_side.textbook_wrong_side
    near = trajectory(problem, sgd(1.0), 100, start=(-1.5, 0.0))
    far = trajectory(problem, sgd(20.0), 500, start=(-10.0, 0.0))
    for walked in (near, far):
        assert (np.diff(walked.losses) < 0).all()
        assert walked.losses[-1] > wrong_side.LIMIT
    excess = far.losses[-1] - wrong_side.LIMIT
    assert excess == pytest.approx(wrong_side.loss_after(20.0 * 500) - wrong_side.LIMIT, rel=0.02)
    right = trajectory(problem, sgd(0.5), 60, start=(-0.9, 0.0))
    np.testing.assert_allclose(right.points[-1], wrong_side.MINIMUM, atol=1e-6)


def test_stationary_points_of_the_wrong_side() -> None:
    function = wrong_side.textbook_wrong_side.make_model().function
    for point in ((1.0, 0.0), (-1.0, 0.0)):
        gradient = torch.func.grad(function)(torch.tensor(point))
        torch.testing.assert_close(gradient, torch.zeros(2))
    assert function(torch.tensor([-1.0, 0.0])) == 2.0
    assert function(torch.tensor([-1e4, 0.0])).item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("start", [(1.5, 1.2), (-1.3, 0.5), (0.4, -1.4)])
def test_two_weights_end_where_their_balance_says(start: tuple[float, float]) -> None:
    walked = trajectory(redundancy.textbook_redundancy, sgd(0.01), 500, start=start)
    np.testing.assert_allclose(walked.points[-1], redundancy.destination(*start), atol=0.02)
    balance = walked.points[:, 0] ** 2 - walked.points[:, 1] ** 2
    np.testing.assert_allclose(balance, balance[0], atol=0.02)


def test_every_point_of_two_weights_is_a_saddle_and_none_of_one_weight() -> None:
    function = redundancy.textbook_redundancy.make_model().function
    for first, second in ((1.0, 2.0), (-0.3, 0.7)):
        point = torch.tensor([first, second])
        hessian = torch.autograd.functional.hessian(function, point)
        expected = torch.tensor(-12 * first**2 * second**2)
        torch.testing.assert_close(torch.linalg.det(hessian), expected)
    walked = trajectory(redundancy.textbook_one_weight, sgd(0.1), 10)
    np.testing.assert_allclose(walked.points[:, 0], 1.8 * 0.8 ** np.arange(11))


# Cliff.


@pytest.mark.parametrize("weight", [4.5, 5.5, 6.5])
def test_gradient_at_the_cliffs_edge_is_the_closed_form(weight: float) -> None:
    point = torch.tensor([weight, cliff_edge(weight)], dtype=torch.float64)
    gradient = torch.func.grad(textbook_cliff.make_model().function)(point)
    # In double precision the state drifts off the unstable point by r^50 roundings.
    np.testing.assert_allclose(gradient.numpy(), edge_gradient(weight), rtol=1e-3)


def test_the_cliff_separates_high_from_low_states() -> None:
    function = textbook_cliff.make_model().function
    edge = cliff_edge(5.5)
    below, above = (
        function(torch.tensor([5.5, edge + offset], dtype=torch.float64)).item()
        for offset in (-1e-3, 1e-3)
    )
    assert below > 0.35
    assert above < 0.1


def test_a_cliff_throws_descent_far_unless_the_gradient_is_clipped() -> None:
    lr, clip = 3.0, 0.1
    thrown = trajectory(textbook_cliff, sgd(lr), 200)
    assert np.linalg.norm(np.diff(thrown.points, axis=0), axis=1).max() > 10
    assert thrown.losses[-1] == pytest.approx(0.09, rel=1e-3), "(1 - 0.7)², flat for ever"
    held = trajectory(textbook_cliff, sgd(lr), 200, clip=clip)
    assert np.linalg.norm(np.diff(held.points, axis=0), axis=1).max() <= lr * clip * (1 + 1e-6)
    assert held.losses[-1] < 1e-3


def test_clipping_in_the_loop_is_the_same() -> None:
    settings = {"hyperparameters": {"lr": 3.0}, "epochs": 40, "threads": 1}
    assert run("textbook_cliff", "sgd", **settings).final["test_loss"] > 0.089
    clipped = run("textbook_cliff", "sgd", clip={"norm": 0.1}, **settings)
    assert clipped.final["test_loss"] < 0.02
