"""Adam's step on vectors and scalars, at a length given from outside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["first_vector_state", "vector_directions", "vector_length"]

_FIRST, _SECOND = 0.9, 0.99
_LENGTH = 0.2  # of a step per entry, relative to the mean length of the matrices' steps
_FLOOR = 1e-6  # smallest root mean square counted, relative to the vector's largest


def first_vector_state(gradient: Tensor) -> dict[str, Tensor]:
    """Averages before a first gradient; ``count`` is the number of gradients taken in.

    The second moment is kept as its root: in float32 the square of a gradient below 1e-23 is zero.
    """
    return {
        "mean": torch.zeros_like(gradient),
        "root": torch.zeros_like(gradient),
        "count": gradient.new_zeros(()),
    }


def vector_directions(
    states: Sequence[dict[str, Tensor]], gradients: Sequence[Tensor], live: Sequence[Tensor]
) -> list[Tensor]:
    """Directions with entries near one, after the averages have taken in a gradient, in place.

    ``live`` holds ones, or zeros for vectors to leave as they are. In place of a constant beside
    the root of the second moment stands a floor relative to the vector's largest, so that the
    direction does not depend on the gradient's scale.

    Source: Kingma and Ba 2015, Adam.
    """
    means, roots = [s["mean"] for s in states], [s["root"] for s in states]
    counts, fresh, alive = [s["count"] for s in states], list(gradients), list(live)
    torch._foreach_add_(counts, alive)
    first: list[Tensor] = [(1 - _FIRST) * a for a in alive]
    second: list[Tensor] = [(1 - _SECOND) * a for a in alive]
    torch._foreach_lerp_(means, fresh, first)
    for root, gradient, weight in zip(roots, fresh, second, strict=True):
        torch.hypot(root * (1 - weight).sqrt(), gradient * weight.sqrt(), out=root)
    # For a count of zero everything is zero, whatever the correction.
    count = torch.stack(counts)
    correction = (1 - _SECOND**count).sqrt() / (1 - _FIRST**count).clamp(min=1 - _FIRST)
    tiny = torch.finfo(count.dtype).tiny
    counted = [torch.maximum(r, (_FLOOR * r.amax()).clamp(min=tiny)) for r in roots]
    directions = torch._foreach_div(means, counted)
    torch._foreach_mul_(directions, list((correction * torch.stack(alive)).unbind()))
    return list(directions)


def vector_length(log_lengths: Sequence[Tensor], otherwise: float, like: Tensor) -> Tensor:
    """Length per entry of the vectors' step: a share of the matrices' geometric mean length.

    ``otherwise`` is taken for that mean where there are no matrices. The result is of the type and
    on the device of ``like``.
    """
    if not log_lengths:
        return like.new_full((), otherwise) * _LENGTH
    return torch.stack([length.to(like) for length in log_lengths]).mean().exp() * _LENGTH
