"""Whether a path's highest point can be lowered: the quadratic picture perpendicular to the path.

A point where the force perpendicular to the path vanishes may be a saddle, which no path near it
avoids, or the top of a ridge on which the path balances, as the straight line through the middle of
a ring does. A few steps of Lanczos's iteration tell them apart. They start from the force and a
little noise, so that they find the direction of negative curvature, and the bottom of the valley
where the force is small only because the valley is flat.

Index legend: N parameters, m steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optiscope.landscape.evaluations import Evaluations

__all__ = ["MOST_GRADIENTS", "beside", "lower_point"]

MOST_GRADIENTS = 13
"""Gradients that `lower_point` takes at most: the point's own, and one for each step."""

NOISE = 0.3  # share of the first direction that is random
FLAT = 1e-3  # of the largest curvature: less, and steps are no longer scaled by it
SCALES = (1.0, 0.5, 0.25, 0.125, 0.03, 0.008)


def lower_point(
    objective: Evaluations,
    point: Tensor,
    along: Tensor,
    reach: float,
    *,
    loss: float,
    least: float,
    gradients: int = MOST_GRADIENTS,
) -> tuple[Tensor, float] | None:
    """A point beside the path that is lower by at least ``least``, with its loss; None: a saddle.

    Args:
        objective: the loss.
        point: on the path [N].
        along: unit vector along the path [N].
        reach: length of a step at most.
        loss: at the point.
        least: fall that counts.
        gradients: evaluations allowed, at least 2.
    """
    steps = min(gradients - 1, MOST_GRADIENTS - 1, len(point) - 1)
    if steps < 1 or not reach > 0:
        return None
    _, gradient = objective.value_and_gradient(point)
    if not bool(torch.isfinite(gradient).all()):
        return beside(objective, point, along, reach, below=loss - least)
    force = _across(-gradient, along)
    basis, curvatures = _krylov(objective, point, gradient, force, along, reach, steps)
    if not len(basis):
        return None
    values, vectors = torch.linalg.eigh(curvatures)
    scale = float(values.abs().max())
    pulls = vectors.T @ (basis @ force).double().cpu()
    steps_along = pulls / values.abs().clamp_min(FLAT * scale) if scale > 0 else pulls
    moves = [_combined(basis, vectors @ steps_along)]
    if float(values[0]) < -FLAT * scale:
        ridge = _combined(basis, vectors[:, 0])
        sign = -1.0 if float(pulls[0]) < 0 else 1.0
        moves += [sign * reach * ridge, -sign * reach * ridge]
    lowest, best = loss - least, None
    for move in moves:
        length = float(torch.linalg.vector_norm(move))
        capped = move * min(1.0, reach / length) if length > 0 else move
        for share in SCALES if length > 0 else ():
            trial = point + share * capped
            there = objective.value(trial)
            if there < lowest:
                lowest, best = there, trial
    return None if best is None else (best, lowest)


def beside(
    objective: Evaluations, point: Tensor, along: Tensor, reach: float, *, below: float
) -> tuple[Tensor, float] | None:
    """The lowest of some random points beside the path under ``below``, where no gradient helps."""
    generator = torch.Generator().manual_seed(0)
    lowest, best = below, None
    for _ in range(4):
        side = _random(point, along, generator)
        length = float(torch.linalg.vector_norm(side))
        for share in SCALES if length > 0 else ():
            for sign in (1.0, -1.0):
                trial = point + side * (sign * share * reach / length)
                there = objective.value(trial)
                if there < lowest:
                    lowest, best = there, trial
    return None if best is None else (best, lowest)


def _krylov(
    objective: Evaluations,
    point: Tensor,
    gradient: Tensor,
    force: Tensor,
    along: Tensor,
    reach: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Orthonormal rows [m, N] perpendicular to the path, and the Hessian's part there [m, m]."""
    strength = float(torch.linalg.vector_norm(force))
    start = _random(point, along, torch.Generator().manual_seed(0))
    start = start / torch.linalg.vector_norm(start).clamp_min(1e-30)
    if 0 < strength < math.inf:
        start = force / strength + NOISE * start
    rows: list[Tensor] = []
    columns: list[Tensor] = []
    distance = (1e-3 if point.dtype == torch.float64 else 1e-2) * reach
    nothing = 1e-6
    rest, size = start, 1.0
    for _ in range(steps):
        for row in rows * 2:
            rest = rest - (row @ rest) * row
        rest = _across(rest, along)
        length = float(torch.linalg.vector_norm(rest))
        if not length > nothing * size or not math.isfinite(length):
            break
        rows.append(rest / length)
        _, moved = objective.value_and_gradient(point + distance * rows[-1])
        image = _across((moved - gradient) / distance, along)
        if not bool(torch.isfinite(image).all()):
            rows.pop()
            break
        columns.append(image)
        rest, size = image, float(torch.linalg.vector_norm(image))
    if not rows:
        return point.new_zeros(0, len(point)), torch.zeros(0, 0, dtype=torch.float64)
    basis = torch.stack(rows)
    matrix = (basis @ torch.stack(columns).T).double().cpu()
    return basis, (matrix + matrix.T) / 2


def _combined(basis: Tensor, coefficients: Tensor) -> Tensor:
    return coefficients.to(basis) @ basis


def _random(point: Tensor, along: Tensor, generator: torch.Generator) -> Tensor:
    """A random vector [N] perpendicular to the path."""
    noise = torch.randn(len(point), generator=generator, dtype=torch.float64).to(point)
    return _across(noise, along)


def _across(vector: Tensor, along: Tensor) -> Tensor:
    """The part of a vector perpendicular to the path."""
    return vector - (vector @ along) * along
