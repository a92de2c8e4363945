"""Poor correspondence of local and global structure: downhill leads away from the minimum.

f(u, v) = ½ v² + (u - 1)² / (1 + u²). The minimum is 0 at (1, 0) and the only other stationary
point is a pass at (-1, 0), of height 2. Left of the pass the ground falls for ever towards 1.
Descent meets neither a bad minimum nor a saddle there, and still never gets below 1.
"""

from __future__ import annotations

from torch import Tensor

from optiscope.problems.textbook.surface import surface_problem

__all__ = ["LIMIT", "MINIMUM", "loss_after", "textbook_wrong_side"]

MINIMUM = (1.0, 0.0)
LIMIT = 1.0
"""What the loss falls towards on the wrong side."""


def _two_sides(point: Tensor) -> Tensor:
    """½ v² + (u - 1)² / (1 + u²)."""
    u, v = point.unbind()
    return 0.5 * v**2 + (u - 1.0) ** 2 / (1.0 + u**2)


def loss_after(time: float) -> float:
    """Loss of gradient descent on the wrong side after many steps; ``time`` is steps times rate.

    Far out du/dt = -2 / u², so that u = -(6 t)^⅓ and the loss is 1 + 2 / (6 t)^⅓, to first order.
    """
    return LIMIT + 2.0 / float((6.0 * time) ** (1.0 / 3.0))


textbook_wrong_side = surface_problem(
    "textbook_wrong_side",
    _two_sides,
    (-1.5, 1.0),
    epochs=300,
    source="after Goodfellow, Bengio & Courville 2016, figure 8.4",
    notes="Starts left of the pass at u = -1. Minimum 0 at (1, 0); descent tends to 1.",
)
