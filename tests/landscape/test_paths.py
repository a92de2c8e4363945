"""Paths between minima of functions whose saddles are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from optiscope import EmpiricalRisk, landscape
from optiscope.landscape.evaluations import Evaluations
from optiscope.landscape.ground import LandscapeError, NotConvergedError
from optiscope.landscape.growing_path import growing_path
from optiscope.landscape.polyline import evenly_spaced, point_at, profile

MUELLER_BROWN_SADDLE = -40.6648


class Function(nn.Module):
    """A function of the parameters alone."""

    def __init__(self, function: Callable[[Tensor], Tensor], size: int = 2) -> None:
        super().__init__()
        self.function = function
        self.point = nn.Parameter(torch.zeros(size))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self.point)


def mueller_brown(point: Tensor) -> Tensor:
    x, y = point
    rows = (
        (-200, -1, 0, -10, 1, 0),
        (-100, -1, 0, -10, 0, 0.5),
        (-170, -6.5, 11, -6.5, -0.5, 1.5),
        (15, 0.7, 0.6, 0.7, -1, 1),
    )
    return sum(
        height * torch.exp(a * (x - u) ** 2 + b * (x - u) * (y - v) + c * (y - v) ** 2)
        for height, a, b, c, u, v in rows
    )  # type: ignore[return-value]


def curved_valley(point: Tensor) -> Tensor:
    """Minima at x = ±1 on the valley y = sin 2x, between them a saddle of height 1."""
    x, y = point
    return (x**2 - 1) ** 2 + 20 * (y - torch.sin(2 * x)) ** 2


def ring(point: Tensor) -> Tensor:
    """A valley round the origin: the way from one side to the other is no higher than 0.1."""
    radius = point.square().sum().sqrt()
    return 10 * (radius - 1) ** 2 + 0.05 * (1 - (point[0] / radius) ** 2) * 2


def risk_of(function: Callable[[Tensor], Tensor], size: int = 2) -> EmpiricalRisk:
    return EmpiricalRisk(
        Function(function, size), lambda outputs, targets: outputs, [(torch.zeros(3, 1),) * 2]
    )


def at(*point: float) -> dict[str, Tensor]:
    return {"point": torch.tensor(point)}


MINIMA = at(-0.558224, 1.441726), at(0.623499, 0.028038)
VALLEY = at(-1.0, -math.sin(2.0)), at(1.0, math.sin(2.0))
RING = at(-1.0, 0.0), at(1.0, 0.0)


@pytest.mark.parametrize(
    ("function", "ends", "saddle"),
    [
        (mueller_brown, MINIMA, MUELLER_BROWN_SADDLE),
        (curved_valley, VALLEY, 1.0),
        (ring, (at(-1.0, 0.0), at(0.998, 0.063)), 0.1),
    ],
)
def test_the_default_path_crosses_at_the_saddle(
    function: Callable[[Tensor], Tensor], ends: tuple[dict[str, Tensor], ...], saddle: float
) -> None:
    risk = risk_of(function)
    path = landscape.connect(risk, *ends)
    higher = max(float(risk.value(end)) for end in ends)
    assert path.barrier == pytest.approx(saddle - higher, rel=1e-3)
    assert path.highest == pytest.approx(saddle, abs=1e-3 * path.barrier)
    assert path.converged
    assert path.cost.gradients <= 1000
    assert path.ends_exact
    assert torch.equal(path.images[0], risk.flatten(ends[0]))
    assert torch.equal(path.images[-1], risk.flatten(ends[1]))
    assert float(risk.value(path.point(path.where))) == pytest.approx(path.highest, rel=1e-5)
    assert path.line_barrier > path.barrier


def wells(height: float, length: float) -> Callable[[Tensor], Tensor]:
    return lambda p: height * (((p[0] / length) ** 2 - 1) ** 2 + (p[1] / length) ** 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("height", "length"), [(1.0, 1.0), (1e-8, 1e3), (1e8, 1e-3)])
def test_a_straight_line_over_the_saddle_has_converged(
    height: float, length: float, dtype: torch.dtype
) -> None:
    risk = risk_of(wells(height, length))
    risk.model.to(dtype)
    path = landscape.connect(risk, at(-length, 0.0), at(length, 0.0))
    assert path.barrier == pytest.approx(height, rel=1e-4)
    assert path.line_barrier == pytest.approx(height, rel=1e-4)
    assert path.converged


@pytest.mark.parametrize("method", ["grow", "string", "band"])
@pytest.mark.parametrize("size", [2, 6])
def test_a_line_through_the_middle_of_a_ring_is_no_saddle(method: str, size: int) -> None:
    """By symmetry no force pushes the line off the hill, whose top is no saddle all the same."""
    risk = risk_of(lambda p: (p.square().sum() - 1) ** 2, size)
    left, right = at(-1.0, *[0.0] * (size - 1)), at(1.0, *[0.0] * (size - 1))
    path = landscape.connect(
        risk,
        left,
        right,
        method=method,  # type: ignore[arg-type]
        gradients=300,
        points=51,
    )
    assert path.line_barrier == pytest.approx(1.0, abs=1e-4)
    assert path.barrier < 0.02
    assert path.cost.gradients <= 300 + 13


def test_a_peak_without_a_gradient_is_gone_round() -> None:
    """At the origin the angle has no derivative; the pass beside it is 0.1 high."""

    def pass_of(p: Tensor) -> Tensor:
        radius, angle = p.norm(), torch.atan2(p[1], p[0])
        return 10 * (radius - 1) ** 2 + 0.1 * torch.sin(angle) ** 2

    path = landscape.connect(risk_of(pass_of), *RING)
    assert path.barrier == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("stiffness", [20.0, 1000.0])
def test_a_stiff_valley_is_followed_to_its_bottom(stiffness: float) -> None:
    """Along y = x^2, thousands of times as stiff as it is flat; the saddle is 1 high."""
    risk = risk_of(lambda p: (p[0] ** 2 - 1) ** 2 + stiffness * (p[1] - p[0] ** 2) ** 2)
    path = landscape.connect(risk, at(-1.0, 1.0), at(1.0, 1.0), points=101)
    assert path.barrier == pytest.approx(1.0, rel=1e-3)
    assert path.converged


@pytest.mark.slow
@pytest.mark.parametrize("method", ["string", "band"])
@pytest.mark.parametrize(
    ("function", "ends", "saddle", "error"),
    [
        (mueller_brown, MINIMA, MUELLER_BROWN_SADDLE, 0.02),  # 11 images round the corner
        (curved_valley, VALLEY, 1.0, 1e-3),
    ],
)
def test_string_and_band_find_the_saddle_too(
    method: str,
    function: Callable[[Tensor], Tensor],
    ends: tuple[dict[str, Tensor], ...],
    saddle: float,
    error: float,
) -> None:
    path = landscape.connect(
        risk_of(function),
        *ends,
        method=method,  # type: ignore[arg-type]
        gradients=600,
        points=101,
    )
    assert path.highest == pytest.approx(saddle, abs=error * path.barrier)
    assert len(path.images) == 11
    assert path.cost.gradients <= 600 + 2


def test_a_bezier_curve_goes_round_a_hill() -> None:
    def hill(point: Tensor) -> Tensor:
        return torch.exp(-(point[0] ** 2) - (point[1] + 0.2) ** 2)

    path = landscape.connect(risk_of(hill), at(-4.0, 0.0), at(4.0, 0.0), method="bezier")
    assert path.line_barrier == pytest.approx(math.exp(-0.04), abs=1e-3)
    assert path.barrier < 0.01


def test_nothing_is_lower_than_the_saddle() -> None:
    """Any path crosses the ridge: a smaller value would be a hill missed between two points."""
    for gradients in (30, 300):
        path = landscape.connect(risk_of(mueller_brown), *MINIMA, gradients=gradients, points=101)
        assert path.highest > MUELLER_BROWN_SADDLE - 1e-3


def test_a_path_within_a_convex_bowl_has_no_barrier() -> None:
    risk = risk_of(lambda p: (p**2).sum(), 5)
    ends = {"point": torch.ones(5)}, {"point": -torch.ones(5)}
    with pytest.raises(NotConvergedError, match="require_converged=False"):
        landscape.connect(risk, *ends)
    path = landscape.connect(risk, *ends, require_converged=False)
    assert path.barrier == 0.0
    assert path.converged
    assert path.ends[0].gradient_norm == pytest.approx(2 * math.sqrt(5), rel=1e-6)
    assert path.ends[0].fall == pytest.approx(5.0, rel=1e-6)


def test_equal_ends_are_joined_by_themselves() -> None:
    path = landscape.connect(risk_of(curved_valley), VALLEY[0], VALLEY[0])
    assert path.barrier == path.line_barrier == path.length == 0.0
    assert path.converged


def test_a_region_without_a_loss_is_an_infinite_barrier_on_the_line_and_gone_round() -> None:
    def wall(point: Tensor) -> Tensor:
        inside = (point**2).sum() < 0.25
        hole = torch.where(inside, math.nan, 0.0)
        return 10 * ((point**2).sum().sqrt() - 1) ** 2 + hole

    path = landscape.connect(risk_of(wall), at(-1.0, 0.0), at(0.99995, 0.01))
    assert path.line_barrier == math.inf
    assert path.barrier < 0.1


def test_the_result_is_never_above_the_straight_line() -> None:
    path = landscape.connect(risk_of(mueller_brown), *MINIMA, gradients=6, method="string")
    assert path.barrier <= path.line_barrier
    assert not path.converged


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "grwo"}, "did you mean 'grow'"),
        ({"images": 2}, "images of at least 3, got 2"),
        ({"gradients": 0}, "gradients of at least 1"),
        ({"statistics": "other"}, "'recompute' or 'keep'"),
    ],
)
def test_what_is_not_understood_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(LandscapeError, match=words):
        landscape.connect(risk_of(ring), *RING, **options)  # type: ignore[arg-type]


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    landscape.connect(
        risk_of(curved_valley),
        *VALLEY,
        gradients=100,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told[0] == (1, 100)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_growing_path_counts_what_it_spends() -> None:
    asked = {"value": 0, "gradient": 0}

    def value(theta: Tensor) -> float:
        asked["value"] += 1
        return float(curved_valley(theta))

    def value_and_gradient(theta: Tensor) -> tuple[float, Tensor]:
        asked["gradient"] += 1
        leaf = theta.clone().requires_grad_()
        loss = curved_valley(leaf)
        return float(loss.detach()), torch.autograd.grad(loss, leaf)[0]

    objective = Evaluations(value, value_and_gradient)
    images, converged = growing_path(
        objective, VALLEY[0]["point"].double(), VALLEY[1]["point"].double(), gradients=500
    )
    assert converged
    assert (objective.forwards, objective.gradients) == (asked["value"], asked["gradient"])
    assert images.dtype == torch.float64


def test_points_of_a_polyline() -> None:
    images = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    assert point_at(images, 0.75).tolist() == [3.0, 0.0]
    assert point_at(images, 0.875).tolist() == [3.0, 0.5]
    assert evenly_spaced(images, 5).tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]]
    along = profile(images, lambda p: float(-((p[0] - 1.2345) ** 2)), points=21)
    assert along.highest == pytest.approx(0.0, abs=1e-6)
    assert along.where == pytest.approx(1.2345 / 4, abs=1e-3)
    assert along.positions[0] == 0.0
    assert along.positions[-1] == 1.0
    assert 0.75 in along.positions
