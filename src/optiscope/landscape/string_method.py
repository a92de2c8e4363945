"""String method: images fall perpendicular to their path and are spread evenly again.

The simplified method of E, Ren & Vanden-Eijnden 2007, with the gradient projected as in their
first one of 2002, and with momentum.

Index legend: M images, N parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optiscope.landscape.evaluations import Evaluations
from optiscope.landscape.images import DONE, REACH, at_rest, first_rates, tangent
from optiscope.landscape.polyline import evenly_spaced
from optiscope.landscape.relaxation import Relaxation

__all__ = ["string_method"]


def string_method(objective: Evaluations, start: Tensor, *, gradients: int) -> Tensor:
    """Images [M, N] of a string relaxed from ``start`` [M, N]; the ends do not move.

    Args:
        objective: the loss.
        start: images, such as evenly spaced ones on the straight line.
        gradients: evaluations allowed.
    """
    images = start.clone()
    inner = len(images) - 2
    if inner < 1 or gradients < inner + 2 or bool((images[0] == images[-1]).all()):
        return images
    used = objective.gradients
    ends = objective.value(images[0]), objective.value(images[-1])
    relaxation = Relaxation(images[1:-1], first_rates(objective, images))
    tops: list[float] = []
    while objective.gradients - used + inner <= gradients:
        pairs = [objective.value_and_gradient(image) for image in images[1:-1]]
        losses = [ends[0], *(loss for loss, _ in pairs), ends[1]]
        tops.append(max(losses[1:-1]))
        if at_rest(tops, max(ends), DONE):
            break
        finite = torch.tensor([math.isfinite(loss) for loss, _ in pairs], device=images.device)
        forces = torch.zeros_like(images[1:-1])
        for i in range(1, inner + 1):
            if not finite[i - 1]:
                continue
            gradient = pairs[i - 1][1]
            along = tangent(
                images[i - 1], images[i], images[i + 1], (losses[i - 1], losses[i], losses[i + 1])
            )
            forces[i - 1] = (gradient @ along) * along - gradient
        if not bool(finite.all()):
            relaxation.halt(~finite)
        gaps = torch.linalg.vector_norm(images[1:] - images[:-1], dim=1)
        images[1:-1] += relaxation.step(forces, REACH * torch.minimum(gaps[:-1], gaps[1:]))
        images = evenly_spaced(images, len(images))
    return images
