"""When an estimate of the Hessian no longer fits, and how far a rate built from it is trusted."""

from __future__ import annotations

import math

from scipy import stats

__all__ = ["GROWTH", "bounded_rate", "curvature_interval", "misfit", "rejected", "step_probe_due"]

REJECT = 0.01  # level of the predictive test
MATTERS = 0.25  # relative change of an eigenvalue that is worth a new estimation
GROWTH = 2.0  # largest factor by which a new estimation raises the rate; squared after trouble
_FIRST_PROBE = 5  # age at which the first step of an estimate is probed


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
    limit = float(stats.f.isf(REJECT, 1, max(batches - 1, 1)))
    matters = abs(found - expected) > MATTERS * abs(expected)
    return matters and misfit(found, expected, deviation) > limit


def curvature_interval(value: float, deviation: float, batches: int) -> tuple[float, float, float]:
    """A curvature with the ends of its 95 % interval."""
    reach = float(stats.t.isf(0.025, max(batches - 1, 1))) * deviation
    return value, value - reach, value + reach


def step_probe_due(age: int) -> bool:
    """Whether an estimate of this age has its steps probed: at 5, 10, 20, 40, ... steps."""
    doublings, rest = divmod(age, _FIRST_PROBE)
    return rest == 0 and doublings > 0 and doublings & (doublings - 1) == 0


def bounded_rate(rate: float | None, most: float, weights: float, gradient: float) -> float | None:
    """A constructed rate made safe to use, or None where it cannot be.

    At most ``most``, and no step longer than 1 plus the weights' norm.

    Args:
        rate: as constructed.
        most: allowed; infinite before there was a rate.
        weights: norm of the parameters.
        gradient: norm of the mean gradient.
    """
    if rate is None:
        return None
    safe = min(rate, most, (1 + weights) / gradient if gradient > 0 else math.inf)
    return safe if math.isfinite(safe) and safe > 0 else None
