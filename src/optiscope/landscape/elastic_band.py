"""Nudged elastic band: images tied by springs relax perpendicular to their path.

Henkelman & Jónsson 2000 (improved tangent); Henkelman, Uberuaga & Jónsson 2000 (climbing image):
once the band has come to rest, the highest image climbs along the path to the saddle.

Index legend: M images, N parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optiscope.landscape.evaluations import Evaluations
from optiscope.landscape.relaxation import Relaxation

__all__ = ["DONE", "REACH", "at_rest", "elastic_band", "first_rates", "tangent"]

STILL, PAUSE = 0.002, 10
"""The highest image climbs once the highest loss changed by less than this share of its height
above the ends in so many steps."""

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


def elastic_band(
    objective: Evaluations, start: Tensor, *, gradients: int, climb: bool = True
) -> Tensor:
    """Images [M, N] of a band relaxed from ``start`` [M, N]; the ends do not move.

    Args:
        objective: the loss.
        start: images, such as evenly spaced ones on the straight line.
        gradients: evaluations allowed.
        climb: whether the highest image climbs to the saddle in the end.
    """
    images = start.clone()
    inner = len(images) - 2
    if inner < 1 or gradients < inner + 2 or bool((images[0] == images[-1]).all()):
        return images
    used = objective.gradients
    ends = objective.value(images[0]), objective.value(images[-1])
    rates = first_rates(objective, images)
    relaxation = Relaxation(images[1:-1], rates)
    stiffness = 1.0 / rates[0] ** 2 / 4
    tops: list[float] = []
    climbing = False
    while objective.gradients - used + inner <= gradients:
        pairs = [objective.value_and_gradient(image) for image in images[1:-1]]
        losses = [ends[0], *(loss for loss, _ in pairs), ends[1]]
        finite = torch.tensor([math.isfinite(loss) for loss, _ in pairs])
        top = max(range(1, inner + 1), key=lambda i: losses[i])
        tops.append(losses[top])
        climbing = climbing or (climb and at_rest(tops, max(ends), STILL))
        if at_rest(tops, max(ends), DONE):
            break
        forces = torch.empty_like(images[1:-1])
        for i in range(1, inner + 1):
            gradient = pairs[i - 1][1]
            along = tangent(
                images[i - 1], images[i], images[i + 1], (losses[i - 1], losses[i], losses[i + 1])
            )
            slope = gradient @ along
            if climbing and i == top:
                forces[i - 1] = 2 * slope * along - gradient
            else:
                ahead = torch.linalg.vector_norm(images[i + 1] - images[i])
                behind = torch.linalg.vector_norm(images[i] - images[i - 1])
                spring = stiffness * (ahead - behind)
                forces[i - 1] = slope * along - gradient + spring * along
        forces = torch.where(finite[:, None].to(forces.device), forces, torch.zeros_like(forces))
        if not bool(finite.all()):
            relaxation.halt(~finite.to(forces.device))
        gaps = torch.linalg.vector_norm(images[1:] - images[:-1], dim=1)
        limits = REACH * torch.minimum(gaps[:-1], gaps[1:])
        images[1:-1] += relaxation.step(forces, limits)
    return images


def at_rest(tops: list[float], ends: float, share: float) -> bool:
    """Whether the highest losses of the last steps differ by less than a share of their height."""
    recent = tops[-PAUSE:]
    rise = recent[-1] - ends
    return len(recent) == PAUSE and rise > 0 and max(recent) - min(recent) < share * rise
