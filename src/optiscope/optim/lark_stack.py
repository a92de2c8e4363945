"""Layers of equal shape as one stack of tensors, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from optiscope.optim.lark_layers import LayerState

__all__ = ["LayerStacks"]

_NAMES = tuple(field.name for field in fields(LayerState))


class LayerStacks:
    """Stacked states, kept between steps so that equal layers are copied together only once.

    The states of single layers are the truth (an optimizer saves and loads them); they are views
    of the stack, and where they no longer are, it is made anew.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[LayerState, list[Tensor]]] = {}  # by the first layer

    def stack(self, states: Sequence[dict[str, Tensor]]) -> LayerState:
        """The states of layers of equal shape as one; that of a single layer as it is."""
        if len(states) == 1:
            return LayerState(**{name: states[0][name] for name in _NAMES})
        kept = self._kept.get(id(states[0]))
        if kept is not None and _are(states, kept[1]):
            return kept[0]
        return LayerState(
            **{name: torch.stack([state[name] for state in states]) for name in _NAMES}
        )

    def unstack(self, stacked: LayerState, states: Sequence[dict[str, Tensor]]) -> None:
        """Put each layer's share of ``stacked`` into its state."""
        if len(states) == 1:
            states[0].update({name: getattr(stacked, name) for name in _NAMES})
            return
        kept = self._kept.get(id(states[0]))
        before = kept[0] if kept is not None and _are(states, kept[1]) else None
        for name in _NAMES:
            whole = getattr(stacked, name)
            if before is not None and getattr(before, name) is whole:
                continue
            for state, share in zip(states, whole.unbind(0), strict=True):
                state[name] = share
        views = [state[name] for state in states for name in _NAMES]
        self._kept[id(states[0])] = (stacked, views)


def _are(states: Sequence[dict[str, Tensor]], views: Sequence[Tensor]) -> bool:
    """Whether the states hold just these tensors, in this order."""
    held = [state[name] for state in states for name in _NAMES]
    return len(held) == len(views) and all(x is y for x, y in zip(held, views, strict=True))
