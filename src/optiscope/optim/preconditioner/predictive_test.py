"""When an estimate of the Hessian no longer fits: its prediction against a fresh product."""

from __future__ import annotations

import math

from scipy import special

__all__ = ["curvature_interval", "misfit", "rejected"]

REJECT = 0.01  # level of the predictive test
MATTERS = 0.25  # relative change of an eigenvalue that is worth a new estimation


def misfit(found: float, expected: float, deviation: float) -> float:
    """Squared error of a predicted curvature in units of its variance."""
    error = abs(found - expected)
    if deviation > 0:
        return (error / deviation) ** 2
    return math.inf if error > 0 else 0.0


def rejected(found: float, expected: float, deviation: float, batches: int) -> bool:
    """Whether a fresh curvature contradicts the predicted one, and by enough to matter.

    The misfit is F-distributed with 1 and ``batches`` - 1 degrees of freedom where the prediction
    holds, its deviation having been estimated from that many batches.
    """
    limit = float(special.fdtri(1, max(batches - 1, 1), 1 - REJECT))
    matters = abs(found - expected) > MATTERS * abs(expected)
    return matters and misfit(found, expected, deviation) > limit


def curvature_interval(value: float, deviation: float, batches: int) -> tuple[float, float, float]:
    """A curvature with the ends of its 95 % interval."""
    reach = float(-special.stdtrit(max(batches - 1, 1), 0.025)) * deviation
    return value, value - reach, value + reach
