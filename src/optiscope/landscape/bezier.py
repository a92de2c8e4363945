"""Quadratic Bézier curve between two solutions whose mean loss is least.

Garipov et al. 2018 train the one free control point with stochastic gradients at random places of
the curve; here the mean over fixed places is minimized by L-BFGS, with the places shifted between
rounds so that the curve cannot hide a hill between them.

Index legend: M images, N parameters.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from optiscope.landscape.evaluations import Evaluations

__all__ = ["bezier", "bezier_curve"]

PLACES = 8
"""Points of the curve at which the loss is averaged."""

ROUNDS = 3
"""Shifts of the places: by 1/4, 3/4 and 1/2 of their distance."""


def bezier_curve(a: Tensor, control: Tensor, b: Tensor, count: int) -> Tensor:
    """``count`` points [count, N] of the curve; the first is ``a`` and the last ``b``, exactly."""
    t = torch.linspace(0.0, 1.0, count, dtype=a.dtype, device=a.device)[:, None]
    curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * control + t**2 * b
    curve[0], curve[-1] = a, b
    return curve


def bezier(
    objective: Evaluations,
    a: Tensor,
    b: Tensor,
    *,
    gradients: int,
    images: int,
    bow: Tensor | None = None,
) -> Tensor:
    """Images [images, N] on the curve from ``a`` to ``b`` [N].

    Args:
        objective: the loss.
        a, b: ends; they do not move.
        gradients: evaluations allowed.
        images: points of the curve that are returned.
        bow: by how much the first curve's middle lies beside the straight line [N].
    """
    control = ((a + b) / 2).double()
    if bow is not None:
        control = control + 2 * bow.double()
    if bool((a == b).all()):
        return bezier_curve(a, a, b, images)
    used = objective.gradients

    for number, shift in enumerate((0.25, 0.75, 0.5)[:ROUNDS]):
        places = (np.arange(PLACES) + shift) / PLACES
        left = gradients - (objective.gradients - used)
        allowed = left // (ROUNDS - number) // PLACES
        if allowed < 1:
            break

        def mean(
            point: NDArray[np.float64], places: NDArray[np.float64] = places
        ) -> tuple[float, NDArray[np.float64]]:
            middle = torch.from_numpy(point).to(a)
            total, gradient = 0.0, torch.zeros_like(a)
            for t in places.tolist():
                here = (1 - t) ** 2 * a + 2 * t * (1 - t) * middle + t**2 * b
                loss, slope = objective.value_and_gradient(here)
                total += loss
                gradient += 2 * t * (1 - t) * slope
            return total / PLACES, (gradient / PLACES).double().cpu().numpy()

        result = optimize.minimize(
            mean,
            control.cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            options={"maxfun": allowed, "maxiter": allowed, "gtol": 0.0, "ftol": 0.0},
        )
        if np.isfinite(result.fun) and np.isfinite(result.x).all():
            control = torch.from_numpy(result.x).to(control)
    return bezier_curve(a, control.to(a), b, images)
