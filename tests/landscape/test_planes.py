"""Planes: directions with the right norms, points where they belong, holes that stay holes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from trained_networks import everything_about, same

from optiscope import EmpiricalRisk, landscape
from optiscope.landscape.grid import evaluate_all
from optiscope.landscape.ground import LandscapeError


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor], size: int) -> None:
        super().__init__()
        self.function = function
        self.point = nn.Parameter(torch.zeros(size))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self.point)


def risk_of(function: Callable[[Tensor], Tensor], size: int) -> EmpiricalRisk:
    return EmpiricalRisk(
        Function(function, size), lambda outputs, targets: outputs, [(torch.zeros(2, 1),) * 2]
    )


@pytest.fixture
def convolutional() -> EmpiricalRisk:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 5)
    )
    batches = [(torch.randn(6, 3, 4, 4), torch.randint(5, (6,)))]
    return EmpiricalRisk(model, nn.CrossEntropyLoss(), batches)


def test_filters_are_normalized_one_by_one_and_a_bias_as_a_whole(
    convolutional: EmpiricalRisk,
) -> None:
    """Guide, cases 11 and 12: eight norms for eight filters, one for a bias vector."""
    risk = convolutional
    weights = risk.unflatten(risk.parameters)
    directions = landscape.random_directions(risk, risk.model.state_dict())
    for axis in directions.axes:
        pieces = risk.unflatten(axis)
        kernel, bias = pieces["0.weight"], pieces["0.bias"]
        assert kernel.shape == (8, 3, 3, 3)
        assert torch.allclose(
            kernel.flatten(1).norm(dim=1), weights["0.weight"].flatten(1).norm(dim=1)
        )
        assert bias.norm() == pytest.approx(float(weights["0.bias"].norm()), rel=1e-5)
        ratios = bias.abs() / weights["0.bias"].abs()
        assert ratios.std() > 0.01  # not entry by entry, which would give equal ratios
        assert torch.allclose(
            pieces["4.weight"].norm(dim=1), weights["4.weight"].norm(dim=1), rtol=1e-5
        )
    zero = landscape.random_directions(risk, risk.model.state_dict(), vectors="zero")
    assert not risk.unflatten(zero.axes[0])["0.bias"].any()
    assert "by zero" in zero.words
    assert "as a whole" in directions.words


def test_random_directions_touch_no_global_generator(convolutional: EmpiricalRisk) -> None:
    state = convolutional.model.state_dict()
    before = torch.get_rng_state()
    first, again, other = (
        landscape.random_directions(convolutional, state, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.axes, again.axes)
    assert not torch.equal(first.axes, other.axes)


def test_a_plane_of_a_quadratic_is_the_quadratic() -> None:
    scales = torch.arange(1.0, 6.0)
    risk = risk_of(lambda p: (scales * p.square()).sum(), 5)
    center = {"point": torch.tensor([1.0, -1.0, 0.5, 2.0, 0.0])}
    found = landscape.plane(risk, center, points=5, extent=(-1.0, 1.0, -0.5, 1.5))
    for i, y in enumerate(found.y.tolist()):
        for j, x in enumerate(found.x.tolist()):
            point = found.directions.point(x, y)
            assert float(found.losses[i, j]) == pytest.approx(
                float((scales * point.square()).sum()), rel=1e-5
            )
    assert found.accuracies is None
    assert found.not_finite == 0
    assert found.cost.forwards == 25


def test_what_is_not_finite_stays_so() -> None:
    """Guide, case 10 and bar 13."""

    def function(p: Tensor) -> Tensor:
        return torch.where(p[0] > 0.4, math.nan, torch.where(p[0] < -0.4, math.inf, p[0]))

    risk = risk_of(function, 2)
    directions = landscape.Directions(torch.zeros(2), torch.eye(2), ("x", "y"), "the coordinates")
    found = landscape.plane(risk, directions, points=5)
    assert found.losses[:, 3:].isnan().all()
    assert (found.losses[:, :2] == math.inf).all()
    assert (found.losses[:, 2] == 0).all()
    assert found.not_finite == 20
    assert "20 losses are not finite" in found.caption
    line = landscape.line(
        risk, {"point": torch.zeros(2)}, {"point": torch.tensor([0.3, 0.0])}, points=7
    )
    assert line.losses[-1].isnan()
    assert line.not_finite == 2


def test_a_plane_through_three_solutions_holds_them() -> None:
    risk = risk_of(lambda p: p.square().sum(), 4)
    a, b, c = ({"point": torch.randn(4)} for _ in range(3))
    directions = landscape.through_solutions(risk, a, b, c)
    for name, state in zip(directions.marks, (a, b, c), strict=True):
        assert torch.allclose(directions.point(*directions.marks[name]), state["point"], atol=1e-5)
    first, second = directions.axes
    assert float(first @ second) == pytest.approx(0.0, abs=1e-4)
    assert float(first.norm()) == pytest.approx(float(second.norm()), rel=1e-5)
    found = landscape.plane(risk, directions, points=4)
    assert found.x[0] < 0 < 1 < found.x[-1]
    with pytest.raises(LandscapeError, match="on one line"):
        landscape.through_solutions(risk, a, b, {"point": 2 * b["point"] - a["point"]})


def test_principal_axes_of_a_trajectory() -> None:
    """A spiral in a plane and a little of a third direction."""
    angles = torch.linspace(0, 4, 30)
    basis = torch.linalg.qr(torch.randn(6, 3)).Q.T
    spiral = torch.stack([3 * (4 - angles) * angles.cos(), (4 - angles) * angles.sin()], 1)
    points = spiral @ basis[:2] + 0.01 * torch.sin(7 * angles)[:, None] * basis[2]
    risk = risk_of(lambda p: p.square().sum(), 6)
    found = landscape.trajectory_directions(risk, list(points))
    centered = points - points[-1]
    values = torch.linalg.svdvals(centered).square()
    assert found.share is not None
    assert found.share == pytest.approx((values[:2] / values.sum()).tolist(), rel=1e-4)
    assert sum(found.share) > 0.99
    assert found.path is not None
    assert found.off_plane is not None
    rebuilt = points[-1] + found.path.float() @ found.axes
    assert torch.allclose((rebuilt - points).norm(dim=1), found.off_plane.float(), atol=1e-5)
    assert found.path[-1].tolist() == [0.0, 0.0]
    assert torch.allclose(found.axes @ found.axes.T, torch.eye(2), atol=1e-5)
    assert "% of its variance" in found.words
    with pytest.raises(LandscapeError, match="at least 3"):
        landscape.trajectory_directions(risk, list(points[:2]))
    with pytest.raises(LandscapeError, match="one line"):
        landscape.trajectory_directions(risk, [points[0] * k for k in range(4)])


def test_several_processes_give_the_same(convolutional: EmpiricalRisk) -> None:
    state = convolutional.model.state_dict()
    before = everything_about(convolutional)
    told: list[tuple[int, int]] = []
    one = landscape.plane(convolutional, state, points=5, processes=1)
    two = landscape.plane(
        convolutional,
        state,
        points=5,
        processes=2,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert (one.processes, two.processes) == (1, 2)
    assert torch.allclose(one.losses, two.losses, rtol=1e-5)
    assert one.accuracies is not None
    assert told == [(k, 25) for k in range(1, 26)]
    assert one.losses[2, 2] == pytest.approx(float(convolutional.value()), rel=0.5)
    assert same(before, everything_about(convolutional))


def test_an_error_in_a_process_arrives() -> None:
    def function(k: int) -> int:
        if k == 7:
            raise ValueError("seven")
        return k * k

    assert evaluate_all(function, range(6), processes=2) == ([k * k for k in range(6)], 2)
    with pytest.raises(ValueError, match="seven"):
        evaluate_all(function, range(9), processes=2)


def test_an_empty_plane_is_refused() -> None:
    risk = risk_of(lambda p: p.square().sum(), 2)
    directions = landscape.Directions(torch.zeros(2), torch.eye(2), ("x", "y"), "the coordinates")
    with pytest.raises(LandscapeError, match="at least 2 points"):
        landscape.plane(risk, directions, points=1)
    with pytest.raises(LandscapeError, match="not empty"):
        landscape.plane(risk, directions, extent=(1.0, 0.0, 0.0, 1.0))


def test_a_step_along_a_leading_eigenvector_rises_by_half_its_eigenvalue() -> None:
    scales = torch.arange(1.0, 6.0)
    risk = risk_of(lambda p: (scales * p.square()).sum(), 5)
    directions = landscape.leading_eigenvectors(risk, {"point": torch.zeros(5)})
    found = landscape.plane(risk, directions, points=3)
    assert float(found.losses[1, 2]) == pytest.approx(5.0, rel=1e-4)  # eigenvalue 10
    assert float(found.losses[2, 1]) == pytest.approx(4.0, rel=1e-4)  # eigenvalue 8
    assert "10 and 8" in directions.words
