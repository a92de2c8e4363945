"""Gradient clipping as a declared value: ``{norm = 1.0}`` or ``{value = 0.5}``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

__all__ = ["check_clip", "clip_gradients"]


def check_clip(declared: Mapping[str, float]) -> None:
    """Raise ValueError with one line where a declared clipping cannot be."""
    limit = next(iter(declared.values()), 0.0)
    one = len(declared) == 1 and set(declared) <= {"norm", "value"}
    if not (one and isinstance(limit, int | float) and 0 < limit < math.inf):
        raise ValueError(f"clip takes one positive 'norm' or 'value', got {dict(declared)}")


def clip_gradients(parameters: Sequence[Tensor], declared: Mapping[str, float]) -> None:
    """Scale the whole gradient to the declared norm at most, or cut each entry at the value."""
    if "norm" in declared:
        nn.utils.clip_grad_norm_(parameters, declared["norm"])
    else:
        nn.utils.clip_grad_value_(parameters, declared["value"])
