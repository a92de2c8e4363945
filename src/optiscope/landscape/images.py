"""Images of a path that relax together: tangent, first step lengths, and when they have arrived.

Index legend: M images, N parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optiscope.landscape.evaluations import Evaluations

__all__ = ["DONE", "PAUSE", "REACH", "at_rest", "first_rates", "tangent"]


PAUSE = 10
"""Images are at rest by what changed in so many steps."""

DONE = 1e-6
"""Less than this, and the images have arrived."""

REACH = 0.5
"""An image moves at most so many distances to its nearer neighbor in one step."""


def tangent(before: Tensor, here: Tensor, after: Tensor, losses: tuple[float, ...]) -> Tensor:
    """Unit vector [N] along the path at an image, towards its higher neighbor.

    Args:
        before, here, after: three images in a row, [N] each.
        losses: at the three.
    """
    ahead, behind = after - here, here - before
    low, middle, high = losses
    if high > middle > low:
        along = ahead
    elif high < middle < low:
        along = behind
    else:
        large = max(abs(high - middle), abs(low - middle))
        small = min(abs(high - middle), abs(low - middle))
        weights = (large, small) if high > low else (small, large)
        along = weights[0] * ahead + weights[1] * behind
    norm = torch.linalg.vector_norm(along)
    if not float(norm) > 0:  # a flat path, or losses that are not finite
        along = after - before
        norm = torch.linalg.vector_norm(along)
    unit: Tensor = along / norm.clamp_min(1e-30)
    return unit


def first_rates(objective: Evaluations, images: Tensor) -> Tensor:
    """Step lengths [M - 2] from the curvature at the middle of the path; two gradients."""
    middle = images[len(images) // 2]
    _, gradient = objective.value_and_gradient(middle)
    curvature = objective.curvature_along(middle, gradient, gradient)
    rate = 0.5 / math.sqrt(curvature) if curvature > 0 else 0.1
    return torch.full((len(images) - 2,), rate, dtype=images.dtype, device=images.device)


def at_rest(tops: list[float], ends: float, share: float) -> bool:
    """Whether the highest losses of the last steps differ by less than a share of their height."""
    recent = tops[-PAUSE:]
    rise = recent[-1] - ends
    return len(recent) == PAUSE and rise > 0 and max(recent) - min(recent) < share * rise
