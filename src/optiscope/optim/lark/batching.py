"""Layers of equal shape as one stack of tensors, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

import torch
from torch import Tensor

from optiscope.optim.lark.matrix_step import LayerState

__all__ = ["LayerStacks"]

_NAMES = tuple(field.name for field in fields(LayerState))


class _Kept(NamedTuple):
    """A stack, the states that share it, and their tensors as views of it."""

    stacked: LayerState
    states: Sequence[dict[str, Tensor]]
    views: list[Tensor]


class LayerStacks:
    """Stacked states, kept between steps so that equal layers are copied together only once.

    The states of single layers are the truth (an optimizer saves and loads them); they are views
    of the stack, and where they no longer are, it is made anew. A state is in one stack at most.
    """

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}  # by each of its states

    def stack(self, states: Sequence[dict[str, Tensor]]) -> LayerState:
        """The states of layers of equal shape as one; that of a single layer as it is."""
        kept = self._kept.get(id(states[0]))
        if kept is not None and len(states) > 1 and _are(states, kept.views):
            return kept.stacked
        for state in states:
            self._dissolve(state)
        if len(states) == 1:
            return LayerState(**{name: states[0][name] for name in _NAMES})
        return LayerState(**{name: _stack([state[name] for state in states]) for name in _NAMES})

    def unstack(self, stacked: LayerState, states: Sequence[dict[str, Tensor]]) -> None:
        """Put each layer's share of ``stacked`` into its state."""
        if len(states) == 1:
            states[0].update({name: getattr(stacked, name) for name in _NAMES})
            return
        kept = self._kept.get(id(states[0]))
        before = kept.stacked if kept is not None else None
        for name in _NAMES:
            whole = getattr(stacked, name)
            if before is not None and getattr(before, name) is whole:
                continue
            for state, share in zip(states, whole.unbind(0), strict=True):
                state[name] = share
        views = [state[name] for state in states for name in _NAMES]
        self._kept.update(dict.fromkeys(map(id, states), _Kept(stacked, states, views)))

    def _dissolve(self, state: dict[str, Tensor]) -> None:
        """Give those that share a stack with ``state`` tensors of their own, so that it can go."""
        kept = self._kept.get(id(state))
        if kept is None:
            return
        views = set(map(id, kept.views))
        for member in kept.states:
            del self._kept[id(member)]
            member.update({n: member[n].clone() for n in _NAMES if id(member[n]) in views})


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """``torch.stack``, in the tensors' own layout: products round differently in another."""
    columns_first = tensors[0].ndim == 2 and not tensors[0].is_contiguous()
    return torch.stack([x.mT for x in tensors]).mT if columns_first else torch.stack(list(tensors))


def _are(states: Sequence[dict[str, Tensor]], views: Sequence[Tensor]) -> bool:
    """Whether the states hold just these tensors, in this order."""
    held = [state[name] for state in states for name in _NAMES]
    return len(held) == len(views) and all(x is y for x, y in zip(held, views, strict=True))
