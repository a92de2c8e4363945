"""A quadratic whose curvatures differ by a chosen factor: gradient descent crawls along a valley.

f(u, v) = ½ (u² + v² / κ), minimum 0 at the origin, condition number κ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from optiscope.problems.problem import Problem
from optiscope.problems.textbook.surface import NOISE, surface_problem

__all__ = [
    "Tuned",
    "best_gradient_descent",
    "best_heavy_ball",
    "ill_conditioned_quadratic",
    "textbook_ill_conditioned",
]


@dataclass(frozen=True)
class Tuned:
    """The best constant settings on the quadratic, and the factor per step that they reach."""

    lr: float
    momentum: float
    contraction: float


def best_gradient_descent(condition_number: float) -> Tuned:
    """η = 2 / (λ_max + λ_min): every step shortens the error by exactly (κ - 1) / (κ + 1)."""
    kappa = condition_number
    return Tuned(2.0 / (1.0 + 1.0 / kappa), 0.0, (kappa - 1.0) / (kappa + 1.0))


def best_heavy_ball(condition_number: float) -> Tuned:
    """Polyak's momentum: (√κ - 1) / (√κ + 1) a step, in the limit of many steps.

    Source: Polyak 1964. η = 4 / (√λ_max + √λ_min)², and the momentum is the square of the factor.
    """
    root = math.sqrt(condition_number)
    contraction = (root - 1.0) / (root + 1.0)
    return Tuned(4.0 / (1.0 + 1.0 / root) ** 2, contraction**2, contraction)


def _valley(point: Tensor, condition_number: float) -> Tensor:
    """½ (u² + v² / κ)."""
    u, v = point.unbind()
    return 0.5 * (u**2 + v**2 / condition_number)


def ill_conditioned_quadratic(
    condition_number: float, noise: float = NOISE, *, name: str = "ill_conditioned"
) -> Problem:
    """The quadratic with that condition number, from (1, 1).

    Args:
        condition_number: κ ≥ 1.
        noise: standard deviation of a sample's gradient noise, per parameter.
        name: of the problem.
    """
    if not condition_number >= 1:
        raise ValueError(f"condition_number must be at least 1, got {condition_number}")
    return surface_problem(
        name,
        partial(_valley, condition_number=condition_number),
        (1.0, 1.0),
        epochs=300,
        source="Polyak 1964; Goodfellow, Bengio & Courville 2016, section 4.3.1",
        noise=noise,
        notes=f"Condition number {condition_number:g}. Tuned gradient descent shortens the error "
        f"by {best_gradient_descent(condition_number).contraction:.4f} a step, tuned heavy ball "
        f"by {best_heavy_ball(condition_number).contraction:.4f}.",
    )


textbook_ill_conditioned = ill_conditioned_quadratic(100.0, name="textbook_ill_conditioned")
