"""A saddle near the path: the gradient vanishes, and what leads away is flat and downhill.

With p = (u + v) / √2 and q = (u - v) / √2, f = ½ p² - ½ c q² + ¼ c q⁴: a saddle at the origin
with curvatures 1 and -c, and minima of -c / 4 at p = 0, q = ±1. The start is nearly on the line
q = 0 that gradient descent follows into the saddle.
"""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor

from optiscope.problems.problem import Problem
from optiscope.problems.textbook.surface import surface_problem

__all__ = ["MINIMA", "escape_steps", "saddle", "textbook_saddle"]

MINIMA = ((math.sqrt(0.5), -math.sqrt(0.5)), (-math.sqrt(0.5), math.sqrt(0.5)))
"""Points (u, v) of the two minima."""

CURVATURE = 0.05
OFFSET = 1e-3
"""Default c, and q at the start."""


def _saddle(point: Tensor, curvature: float) -> Tensor:
    """½ p² - ½ c q² + ¼ c q⁴, with p and q along the diagonals."""
    u, v = point.unbind()
    p, q = (u + v) / math.sqrt(2.0), (u - v) / math.sqrt(2.0)
    return 0.5 * p**2 + curvature * (0.25 * q**4 - 0.5 * q**2)


def escape_steps(factor: float, start: float = OFFSET, end: float = 0.1) -> float:
    """Steps for q to grow from ``start`` to ``end`` where each multiplies it by ``factor``.

    Near the saddle the factor is 1 + η c for gradient descent and 2 for the full step of
    saddle-free Newton, whatever c (Dauphin et al. 2014).
    """
    return math.log(end / start) / math.log(factor)


def saddle(
    curvature: float = CURVATURE, offset: float = OFFSET, *, name: str = "saddle"
) -> Problem:
    """The saddle with negative curvature -c, from p = 0.9, q = ``offset``."""
    if not curvature > 0:
        raise ValueError(f"curvature must be positive, got {curvature}")
    start = ((0.9 + offset) / math.sqrt(2.0), (0.9 - offset) / math.sqrt(2.0))
    return surface_problem(
        name,
        partial(_saddle, curvature=curvature),
        start,
        epochs=300,
        source="Dauphin et al. 2014",
        notes=f"Minima of {-curvature / 4:g}. Gradient descent with rate η takes "
        f"ln(100) / ln(1 + {curvature:g} η) steps to leave the saddle, saddle-free Newton 7.",
    )


textbook_saddle = saddle(name="textbook_saddle")
