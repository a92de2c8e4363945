"""The three copies of a weight: the parameter, a precise copy, and an average.

- The parameter is what the model sees.
- ``precise``: of a parameter in bfloat16 or float16, the float32 value that it is a rounding of.
- ``average``: without a number of total steps, the weights to evaluate.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LOW_PRECISION", "draw_average", "exact_weights", "move", "swap_average"]

LOW_PRECISION = (torch.bfloat16, torch.float16)


def exact_weights(p: Tensor, state: dict[str, Tensor]) -> Tensor:
    """What a step moves: p, or where p is of low precision the copy that p is a rounding of.

    Where p is no rounding of it, p has been changed from outside, and the copy follows.
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
        direction: of as many entries as p.
        scale: a scalar.
        decay: share of p's entries that the step takes away, a scalar; None for none.
        share: weight of the newest weights in their average; None where none is kept.
    """
    weights = exact_weights(p, state)
    if share is None:
        state.pop("average", None)  # of the time before the number of steps was known
    elif "average" not in state:
        state["average"] = weights.detach().to(
            torch.promote_types(p.dtype, torch.float32), copy=True
        )
    if decay is not None:
        weights.mul_(1 - decay)
    weights.addcmul_(direction.view_as(p), -scale)
    if weights is not p:
        p.copy_(weights)
    if share is not None:
        draw_average(state, weights, share)


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
    if "precise" in state:
        p.copy_(state["precise" if training else "average"])
    else:
        here = p.clone()
        p.copy_(state["average"])
        state["average"].copy_(here)
