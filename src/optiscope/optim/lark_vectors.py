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
    means, squares = [s["mean"] for s in states], [s["square"] for s in states]
    counts, fresh, alive = [s["count"] for s in states], list(gradients), list(live)
    torch._foreach_add_(counts, alive)
    first: list[Tensor] = [(1 - _FIRST) * a for a in alive]
    second: list[Tensor] = [(1 - _SECOND) * a for a in alive]
    torch._foreach_lerp_(means, fresh, first)
    torch._foreach_lerp_(squares, torch._foreach_mul(fresh, fresh), second)
    # For a count of zero everything is zero, whatever the correction.
    count = torch.stack(counts)
    correction = (1 - _SECOND**count).sqrt() / (1 - _FIRST**count).clamp(min=1 - _FIRST)
    roots = torch._foreach_clamp_min(torch._foreach_sqrt(squares), torch.finfo(count.dtype).tiny)
    directions = torch._foreach_div(means, roots)
    torch._foreach_mul_(directions, list((correction * torch.stack(alive)).unbind()))
    return list(directions)
