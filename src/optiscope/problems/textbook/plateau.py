"""A well in a plain: far from the minimum there is nearly no gradient to follow.

f(u, v) = 1 - exp(-r² / 2), r² = u² + v²; minimum 0 at the origin, and 1 far away.
"""

from __future__ import annotations

from scipy.special import expi
from torch import Tensor

from optiscope.problems.textbook.surface import surface_problem

__all__ = ["crossing_time", "textbook_plateau"]


def _well(point: Tensor) -> Tensor:
    """1 - exp(-r² / 2), r the distance from the origin."""
    return 1.0 - (-0.5 * point.square().sum()).exp()


def crossing_time(start: float, end: float) -> float:
    """Steps times rate that gradient descent with a small rate needs from r = start to r = end.

    The integral of exp(r² / 2) / r, which is half the exponential integral of r² / 2.
    """
    return 0.5 * float(expi(start**2 / 2) - expi(end**2 / 2))


textbook_plateau = surface_problem(
    "textbook_plateau",
    _well,
    (-3.2, 2.4),
    epochs=400,
    source="Goodfellow, Bengio & Courville 2016, section 8.2.3",
    notes="Starts at distance 4, where the gradient is 0.0013; gradient descent with rate η needs "
    f"{crossing_time(4.0, 1.0):.0f} / η steps to come within 1 of the minimum.",
)
