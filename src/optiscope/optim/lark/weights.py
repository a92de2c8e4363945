"""The three copies of a weight: the parameter, a precise copy, and an average.

- The parameter is what the model sees.
- ``precise``: of a parameter in bfloat16 or float16, the float32 value that it is a rounding of.
- ``average``: without a number of total steps, the weights to evaluate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optiscope.optim.lark.sharded import keep, whole

__all__ = [
    "LOW_PRECISION",
    "begin_average",
    "draw_average",
    "exact_weights",
    "move",
    "swap_average",
]

LOW_PRECISION = (torch.bfloat16, torch.float16)


def exact_weights(p: Tensor, state: dict[str, Tensor]) -> Tensor:
    """What a step moves: p, or where p is of low precision the copy that p is a rounding of.

    p is whole, as are the copies of a parameter that is sharded. Where p is no rounding of the
    copy, p has been changed from outside, and the copy follows.
    """
    if p.dtype not in LOW_PRECISION:
        state.pop("precise", None)
        return p
    precise = state.get("precise")
    if precise is None:
        state["precise"] = precise = p.detach().float()
    else:
        precise.copy_(torch.where(precise.to(p.dtype) == p, precise, p.float()))
    return precise


def move(
    p: Tensor,
    state: dict[str, Tensor],
    direction: Tensor,
    scale: Tensor,
    decay: Tensor | None,
    share: float | Tensor | None,
) -> None:
    """p <- p (1 - decay) - scale direction, and its average.

    Args:
        p: a parameter.
        state: its state, which holds its copies.
        direction: of as many entries as p, [M, N] or of a stack [S, M, N], which is changed.
        scale: a scalar [], or [S].
        decay: share of p's entries that the step takes away, [] or [S]; None for none.
        share: weight of the newest weights in their average; None where none is kept.
    """
    here = whole(p)
    weights = exact_weights(here, state)
    if share is None:
        state.pop("average", None)  # of the time before the number of steps was known
    else:
        begin_average(here, state)
    if decay is not None:
        weights.mul_(1 - _spread(decay, direction, here))
    if scale.ndim:
        weights.sub_(direction.mul_(scale[:, None, None]).view_as(here))
    else:
        weights.addcmul_(direction.view_as(here), -scale)
    if weights is not here:
        here.copy_(weights)
    keep(p, here)
    if share is not None:
        draw_average(state, weights, share)


def _spread(values: Tensor, direction: Tensor, p: Tensor) -> Tensor:
    """A scalar as it is; one number for each matrix of a stack [S] as one for each entry of p."""
    if not values.ndim:
        return values
    return values[:, None, None].expand_as(direction).reshape(p.shape)


def begin_average(p: Tensor, state: dict[str, Tensor]) -> None:
    """The average of a parameter that has none yet: its weights now."""
    if "average" not in state:
        dtype = torch.promote_types(p.dtype, torch.float32)
        state["average"] = exact_weights(p, state).detach().to(dtype, copy=True)


def draw_average(state: dict[str, Tensor], weights: Tensor, share: float | Tensor) -> None:
    """Draw the average towards the weights, of which it takes ``share``."""
    average = state["average"]
    if isinstance(share, Tensor):
        share = share.to(average)
    average.lerp_(weights.to(average.dtype), share)


def swap_average(p: Tensor, state: dict[str, Tensor], *, training: bool) -> None:
    """Put the weights visited last into p, or their average, without losing the other."""
    if "average" not in state:
        return
    here = whole(p)
    if "precise" in state:
        here.copy_(state["precise" if training else "average"])
    else:
        before = here.clone()
        here.copy_(state["average"])
        state["average"].copy_(before)
    keep(p, here)
