"""Adam's step on vectors and scalars, at a length given from outside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["first_vector_state", "vector_directions"]

_FIRST, _SECOND = 0.9, 0.99


def first_vector_state(gradient: Tensor) -> dict[str, Tensor]:
    """Averages before a first gradient; ``count`` is the number of gradients taken in."""
    return {
        "mean": torch.zeros_like(gradient),
        "square": torch.zeros_like(gradient),
        "count": gradient.new_zeros(()),
    }


def vector_directions(
    states: Sequence[dict[str, Tensor]], gradients: Sequence[Tensor], live: Sequence[Tensor]
) -> list[Tensor]:
    """Directions with entries near one, after the averages have taken in a gradient, in place.

    ``live`` holds ones, or zeros for vectors to leave as they are. No constant is added to the
    root of the second moment, so that the direction does not depend on the gradient's scale.

    Source: Kingma and Ba 2015, Adam.
    """
    directions = []
    for state, gradient, alive in zip(states, gradients, live, strict=True):
        mean, square, count = state["mean"], state["square"], state["count"]
        count.add_(alive)
        mean.lerp_(gradient, (1 - _FIRST) * alive)
        square.lerp_(gradient.square(), (1 - _SECOND) * alive)
        # For a count of zero everything is zero, whatever the correction.
        correction = (1 - _SECOND**count).sqrt() / (1 - _FIRST**count).clamp(min=1 - _FIRST)
        root = square.sqrt().clamp_(min=torch.finfo(square.dtype).tiny)
        directions.append(mean / root * (correction * alive))
    return directions
