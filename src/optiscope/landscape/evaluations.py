"""A function of the parameters that counts how often it was asked.

Index legend: N parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Evaluations"]


class Evaluations:
    """A loss and its gradient at flat parameters [N], with counters.

    Path methods take nothing else, so that they work on any function.

    Args:
        value: loss at parameters [N].
        value_and_gradient: loss and gradient [N] there.

    Attributes:
        forwards: calls of ``value``.
        gradients: calls of ``value_and_gradient``.
    """

    def __init__(
        self,
        value: Callable[[Tensor], float],
        value_and_gradient: Callable[[Tensor], tuple[float, Tensor]],
    ) -> None:
        self._value, self._value_and_gradient = value, value_and_gradient
        self.forwards = 0
        self.gradients = 0

    def value(self, theta: Tensor) -> float:
        """Loss at ``theta`` [N]."""
        self.forwards += 1
        return self._value(theta)

    def value_and_gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """Loss and gradient [N] at ``theta`` [N]."""
        self.gradients += 1
        return self._value_and_gradient(theta)

    def curvature_along(self, theta: Tensor, gradient: Tensor, direction: Tensor) -> float:
        """|H d| / |d| at ``theta`` by one more gradient, for a first step length; 0 if unknown.

        Args:
            theta: parameters [N].
            gradient: gradient there [N].
            direction: d [N].
        """
        norm = float(torch.linalg.vector_norm(direction))
        if not (norm > 0 and math.isfinite(norm)):
            return 0.0
        # Relative to theta, far above rounding and far below where a network changes its face.
        length = 1e-3 * (float(torch.linalg.vector_norm(theta)) / math.sqrt(len(theta)) + 1e-3)
        _, moved = self.value_and_gradient(theta + direction * (length / norm))
        change = float(torch.linalg.vector_norm(moved - gradient)) / length
        return change if math.isfinite(change) else 0.0
