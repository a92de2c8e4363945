"""Two weights in series where one would do: (w₁ w₂)² against w².

Both can represent the same functions. With one weight the loss is a parabola. With two the minima
fill both axes, every other point is a saddle in curvature (the Hessian's determinant is
-12 w₁² w₂²), and where descent ends depends on where it began: w₁² - w₂² never changes.
"""

from __future__ import annotations

import math

from torch import Tensor

from optiscope.problems.textbook.surface import surface_problem

__all__ = ["destination", "textbook_one_weight", "textbook_redundancy"]


def _one(point: Tensor) -> Tensor:
    """w²."""
    return point.square().sum()


def _two(point: Tensor) -> Tensor:
    """(w₁ w₂)²."""
    return point.prod().square()


def destination(first: float, second: float) -> tuple[float, float]:
    """Where gradient descent with a small rate ends on (w₁ w₂)² from (w₁, w₂).

    w₁² - w₂² is conserved, so that the larger weight keeps what it has more and the smaller
    becomes 0 (Saxe et al. 2014).
    """
    left = math.sqrt(abs(first**2 - second**2))
    if abs(first) > abs(second):
        return math.copysign(left, first), 0.0
    return 0.0, math.copysign(left, second)


SOURCE = "Goodfellow, Bengio & Courville 2016, section 8.2.2; Saxe et al. 2014"

textbook_redundancy = surface_problem(
    "textbook_redundancy",
    _two,
    (1.5, 1.2),
    epochs=100,
    source=SOURCE,
    notes="Descent with a small rate ends at (0.9, 0).",
)

textbook_one_weight = surface_problem(
    "textbook_one_weight",
    _one,
    (1.8,),
    epochs=100,
    source=SOURCE,
    notes="The same function with one weight: every step with rate η multiplies it by 1 - 2η.",
)
