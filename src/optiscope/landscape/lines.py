"""The loss along the straight line through two solutions, and beyond them.

Index legend: N parameters, P points.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from optiscope.landscape.ground import (
    Checkpoint,
    Ground,
    LandscapeError,
    Statistics,
    state_of,
)
from optiscope.objective.cost import Cost
from optiscope.objective.risk import EmpiricalRisk

__all__ = ["Curve", "Line", "line"]


@dataclass(frozen=True)
class Curve:
    """Losses [P] and, for classification, accuracies [P] along a line."""

    losses: Tensor = field(repr=False)
    accuracies: Tensor | None = field(repr=False)


@dataclass(frozen=True)
class Line:
    """Losses at (1 - c) a + c b.

    Attributes:
        coefficients: c, ascending, with 0 and 1 among them where they lie in the range [P].
        losses: there [P]; NaN stays NaN.
        accuracies: there [P]; None where targets are no classes.
        others: the same for other risks, such as a test split, by name.
        barrier: highest loss between the solutions minus the higher one's.
        distance: Euclidean distance of the solutions.
        ends: the two solutions.
        cost: forward passes over all samples.
    """

    coefficients: Tensor = field(repr=False)
    losses: Tensor = field(repr=False)
    accuracies: Tensor | None = field(repr=False)
    others: Mapping[str, Curve] = field(repr=False)
    barrier: float
    distance: float
    ends: tuple[Checkpoint, Checkpoint]
    cost: Cost

    @property
    def not_finite(self) -> int:
        """Number of losses that are not finite."""
        return int((~torch.isfinite(self.losses)).sum())

    @property
    def caption(self) -> str:
        """What was computed, at what cost, with what error, in words."""
        holes = f"; {self.not_finite} losses are not finite" if self.not_finite else ""
        return (
            f"Loss along the line through two solutions at distance {self.distance:.3g}: "
            f"{len(self.losses)} points, barrier {self.barrier:.3g} between them{holes}. Cost: "
            f"{self.cost}. Losses are exact means over the samples, to rounding; between points "
            "nothing was looked at."
        )


def line(
    risk: EmpiricalRisk,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    *,
    low: float = -1.0,
    high: float = 2.0,
    points: int = 61,
    others: Mapping[str, EmpiricalRisk] | None = None,
    statistics: Statistics = "recompute",
    on_progress: Callable[[int, int], None] | None = None,
) -> Line:
    """Loss and accuracy at (1 - c) a + c b for c from ``low`` to ``high``.

    Args:
        risk: loss, model and samples; running statistics of batch norm are computed on its samples.
        a: state dict of the first solution, buffers included.
        b: that of the second.
        low: lowest c.
        high: highest c.
        points: evenly spaced values of c; 0 and 1 are added where they are missing.
        others: further risks of the same model, such as ``{"test": ...}``.
        statistics: of batch norm away from the solutions.
        on_progress: told of points done and of all.

    Raises:
        NotReproducedError: a solution does not have its checkpoint's loss.
        LandscapeError: the range is empty.
    """
    if not low < high or points < 2:
        raise LandscapeError(
            f"expected low < high and at least 2 points, got {low}, {high} and {points}"
        )
    begun = time.perf_counter()
    others = {} if others is None else others
    ground = Ground(risk, statistics)
    a, b = state_of(a, "the first solution"), state_of(b, "the second solution")
    ends = ground.checkpoint(a, "the first solution"), ground.checkpoint(b, "the second solution")
    coefficients = _coefficients(low, high, points)
    rows: dict[str, list[dict[str, float]]] = {"": [], **{name: [] for name in others}}
    forwards = 0
    for done, c in enumerate(coefficients, start=1):
        if c in (0.0, 1.0):
            end, own = (ends[0], a) if c == 0.0 else (ends[1], b)
            state = {k: v for k, v in own.items() if isinstance(v, Tensor)}
            state |= risk.unflatten(end.theta)
        else:
            theta = ends[0].theta + c * (ends[1].theta - ends[0].theta)
            state = ground.state(theta)
        for name, each in {"": risk, **others}.items():
            rows[name].append(each.evaluate(state))
            forwards += 1
        if on_progress is not None:
            on_progress(done, len(coefficients))
    curves = {name: _curve(values) for name, values in rows.items()}
    own_curve = curves.pop("")
    between = [
        loss for c, loss in zip(coefficients, own_curve.losses.tolist(), strict=True) if 0 <= c <= 1
    ]
    # The ends' losses as they came out on the line, so that rounding makes no barrier.
    known = [
        loss
        for c, loss in zip(coefficients, own_curve.losses.tolist(), strict=True)
        if c in (0.0, 1.0)
    ]
    higher = max(known) if len(known) == 2 else max(end.loss for end in ends)
    highest = max((x if x == x else float("inf") for x in between), default=higher)
    return Line(
        torch.tensor(coefficients, dtype=torch.float64),
        own_curve.losses,
        own_curve.accuracies,
        curves,
        highest - higher,
        float(torch.linalg.vector_norm(ends[1].theta - ends[0].theta)),
        ends,
        Cost(forwards=forwards + ground.forwards, seconds=time.perf_counter() - begun),
    )


def _coefficients(low: float, high: float, points: int) -> list[float]:
    """Evenly spaced values; those that are 0 or 1 but for rounding are exactly that."""
    step = (high - low) / (points - 1)
    values = [low + k * step for k in range(points - 1)] + [high]
    for whole in (0.0, 1.0):
        nearest = min(range(points), key=lambda k: abs(values[k] - whole))
        if abs(values[nearest] - whole) < 1e-9 * max(step, 1.0):
            values[nearest] = whole
        elif low < whole < high:
            values.append(whole)
            values.sort()
            points += 1
    return values


def _curve(values: list[dict[str, float]]) -> Curve:
    losses = torch.tensor([v["loss"] for v in values], dtype=torch.float64)
    if not all("accuracy" in v for v in values):
        return Curve(losses, None)
    return Curve(losses, torch.tensor([v["accuracy"] for v in values], dtype=torch.float64))
