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
from optiscope.landscape.images import DONE, REACH, at_rest, first_rates, tangent
from optiscope.landscape.relaxation import Relaxation

__all__ = ["elastic_band"]

STILL = 0.002
"""The highest image climbs once the highest loss changed by less than this share of its height
above the ends in ``PAUSE`` steps."""


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
