"""A cliff: one recurrent unit whose loss has a wall, and one step from its edge undoes many.

The state x ← w σ(x) + b is repeated 50 times from x₀ = ½, and the loss is (σ(x) - 0.7)². For
large w the state ends high or low depending on the side of an unstable fixed point on which it
starts. The cliff stands where the start itself is that point.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optiscope.problems.textbook.surface import surface_problem

__all__ = ["cliff_edge", "edge_gradient", "recurrent_unit", "textbook_cliff"]

STEPS = 50
FIRST_STATE = 0.5
TARGET = 0.7


def recurrent_unit(point: Tensor) -> Tensor:
    """(σ(x₅₀) - 0.7)² of the weight and bias (w, b)."""
    weight, bias = point.unbind()
    state = torch.full_like(weight, FIRST_STATE)
    for _ in range(STEPS):
        state = weight * state.sigmoid() + bias
    return (state.sigmoid() - TARGET) ** 2


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def cliff_edge(weight: float) -> float:
    """The bias at which the start is a fixed point: b = x₀ - w σ(x₀).

    A cliff where the fixed point is unstable, w σ'(x₀) > 1, that is w > 4.26.
    """
    return FIRST_STATE - weight * _sigmoid(FIRST_STATE)


def edge_gradient(weight: float) -> tuple[float, float]:
    """Gradient of the loss by (w, b) on the cliff's edge, in closed form.

    There the state stands still and each repetition multiplies a disturbance by r = w σ'(x₀), so
    that ∂x₅₀/∂b = (r⁵⁰ - 1) / (r - 1), and σ(x₀) times as much by w.
    """
    high = _sigmoid(FIRST_STATE)
    slope = high * (1.0 - high)
    ratio = weight * slope
    by_bias = 2.0 * (high - TARGET) * slope * (ratio**STEPS - 1.0) / (ratio - 1.0)
    return high * by_bias, by_bias


textbook_cliff = surface_problem(
    "textbook_cliff",
    recurrent_unit,
    (5.5, -2.8),
    epochs=200,
    source="Pascanu, Mikolov & Bengio 2013, figure 6",
    notes="The cliff's edge is the line b = 0.5 - 0.6225 w. Train it with and without "
    "clipping of the gradient's norm.",
)
