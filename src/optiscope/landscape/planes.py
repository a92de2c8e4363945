"""The loss on a plane of the parameter space.

Index legend: N parameters, U and V points along the two axes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from optiscope.landscape.directions import Directions, random_directions
from optiscope.landscape.grid import evaluate_all
from optiscope.landscape.ground import Ground, LandscapeError, Statistics, state_of
from optiscope.objective.cost import Cost
from optiscope.objective.risk import EmpiricalRisk

__all__ = ["Plane", "plane"]

Extent = tuple[float, float, float, float]
"""Lowest and highest x, lowest and highest y."""

MARGIN = 0.25
"""Room around marks and path, as a share of their range."""


@dataclass(frozen=True)
class Plane:
    """Losses on a grid.

    Attributes:
        x: values along the first direction [U].
        y: values along the second [V].
        losses: at every (x, y) [V, U]; what is not finite stays so.
        accuracies: there [V, U]; None where targets are no classes.
        directions: the plane.
        not_finite: number of losses that are not finite, drawn as holes.
        processes: number of processes that shared the work.
        cost: forward passes over all samples.
    """

    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    losses: Tensor = field(repr=False)
    accuracies: Tensor | None = field(repr=False)
    directions: Directions
    not_finite: int
    processes: int
    cost: Cost

    @property
    def caption(self) -> str:
        """What was computed, at what cost, with what error, in words."""
        holes = (
            f" {self.not_finite} losses are not finite and are drawn as holes."
            if self.not_finite
            else ""
        )
        off = self.directions.off_plane
        distance = (
            ""
            if off is None
            else f" The path is a projection: its points lie up to {float(off.max()):.2g} off the "
            "plane, where the loss is another."
        )
        return (
            f"Loss on a plane: {self.directions.words}. {len(self.x)} x {len(self.y)} points, "
            f"exact means over the samples; what lies between is interpolated.{distance}{holes} "
            f"Cost: {self.cost} on {self.processes} process{'es' if self.processes > 1 else ''}. "
            f"Two directions of {len(self.directions.origin):,} show little of the landscape."
        )


def plane(
    risk: EmpiricalRisk,
    around: Mapping[str, Tensor] | Directions,
    *,
    extent: float | Extent | None = None,
    points: int = 25,
    statistics: Statistics = "recompute",
    seed: int = 0,
    processes: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Plane:
    """Loss and accuracy on a grid of a plane.

    Args:
        risk: loss, model and samples.
        around: a state dict, around which two filter-normalized random directions are drawn, or
            directions from `random_directions`, `through_solutions`, `trajectory_directions` or
            `leading_eigenvectors`.
        extent: half the side of a square around the origin, or lowest x, highest x, lowest y and
            highest y; None: 1, or what marks and path need.
        points: along each axis; an odd number has the origin of a square on the grid.
        statistics: of batch norm, ``recompute`` at every point.
        seed: of random directions.
        processes: at most; None: all cores where the work is worth it.
        on_progress: told of points done and of all.

    Raises:
        LandscapeError: fewer than two points along an axis, or an empty extent.
    """
    if points < 2:
        raise LandscapeError(f"expected at least 2 points along each axis, got {points}")
    begun = time.perf_counter()
    if not isinstance(around, Directions):
        around = state_of(around, "the solution")
        Ground(risk, statistics).checkpoint(around, "the solution")
        around = random_directions(risk, around, seed=seed)
    left, right, bottom, top = _limits(around, extent)
    x, y = _axis(left, right, points), _axis(bottom, top, points)
    ground = Ground(risk, statistics)
    directions = around

    def figures(place: tuple[float, float]) -> dict[str, float]:
        state = ground.state(directions.point(*place))
        return risk.evaluate(state)

    places = [(u, v) for v in y for u in x]
    rows, used = evaluate_all(figures, places, processes=processes, on_progress=on_progress)
    shape = (len(y), len(x))
    losses = torch.tensor([row["loss"] for row in rows], dtype=torch.float64).view(shape)
    accuracies = None
    if all("accuracy" in row for row in rows):
        accuracies = torch.tensor([r["accuracy"] for r in rows], dtype=torch.float64).view(shape)
    passes = 2 if ground.recomputes else 1
    return Plane(
        torch.tensor(x, dtype=torch.float64),
        torch.tensor(y, dtype=torch.float64),
        losses,
        accuracies,
        around,
        int((~torch.isfinite(losses)).sum()),
        used,
        Cost(forwards=passes * len(places), seconds=time.perf_counter() - begun),
    )


def _axis(low: float, high: float, points: int) -> list[float]:
    """Evenly spaced values; one that is zero but for rounding is zero."""
    step = (high - low) / (points - 1)
    values = [low + k * step for k in range(points - 1)] + [high]
    return [0.0 if abs(v) < 1e-9 * step else v for v in values]


def _limits(directions: Directions, extent: float | Extent | None) -> Extent:
    if isinstance(extent, int | float):
        extent = (-extent, extent, -extent, extent)
    if extent is not None:
        left, right, bottom, top = extent
        if not (left < right and bottom < top):
            raise LandscapeError(f"expected an extent that is not empty, got {extent!r:.80}")
        return left, right, bottom, top
    spots = torch.tensor(list(directions.marks.values()), dtype=torch.float64).view(-1, 2)
    if directions.path is not None:
        spots = torch.cat([spots, directions.path])
    if len(spots) < 2:
        return -1.0, 1.0, -1.0, 1.0
    low, high = spots.min(0).values, spots.max(0).values
    margin = MARGIN * float((high - low).max())
    return (
        float(low[0]) - margin,
        float(high[0]) + margin,
        float(low[1]) - margin,
        float(high[1]) + margin,
    )
