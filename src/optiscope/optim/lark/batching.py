"""Layers of equal shape treated at once: which they are, their stack of tensors, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optiscope.optim.lark.gradients import LiveGradient
from optiscope.optim.lark.matrix_step import LayerState, kept_pairs
from optiscope.optim.lark.reading import matrix_shape
from optiscope.optim.lark.schedule import Due, duties
from optiscope.optim.lark.settings import LarkSettings

__all__ = ["EqualLayers", "LayerStacks", "equal_layers", "pairs_of", "seen", "vectors_by_type"]

_NAMES = tuple(field.name for field in fields(LayerState))
_MAX_STACKED = 65_536  # entries up to which equal layers are worth copying together on a CPU

State = dict[str, Tensor]


@dataclass(frozen=True)
class EqualLayers:
    """Matrices of one group that are treated at once: of equal shape and with equal duties."""

    due: Due
    layers: list[tuple[Tensor, LiveGradient]]


def seen(state: Mapping[str, Tensor]) -> int:
    """Gradients that a matrix has had."""
    return int(state.get("step", 0))


def pairs_of(p: Tensor, state: Mapping[str, Tensor], settings: LarkSettings) -> tuple[int, int]:
    """Eigenpairs kept on either side: those of p's first gradient, whatever rank is now."""
    if state:
        return int(state["left"].shape[-1]), int(state["right"].shape[-1])
    m, n = matrix_shape(p.shape, settings.read_as)[-2:]
    rank, full = settings.rank, settings.full_up_to
    return kept_pairs(m, n, rank, full), kept_pairs(n, m, rank, full)


def equal_layers(
    params: Iterable[Tensor],
    gradients: Mapping[Tensor, LiveGradient],
    states: Mapping[Tensor, State],
    settings: LarkSettings,
) -> list[EqualLayers]:
    """The matrices of a group that have a gradient, those of equal shape and duties together.

    A weight that is a stack of matrices itself stays alone.
    """
    equal: dict[Any, EqualLayers] = {}
    for place, p in enumerate(params):
        shape = matrix_shape(p.shape, settings.read_as)
        if p not in gradients or not shape:
            continue
        gradient, state = gradients[p], states.get(p, {})
        small = p.device.type != "cpu" or p.numel() <= _MAX_STACKED
        together = small and len(shape) == 2
        due = duties(seen(state), settings)
        alone = None if together else place
        key = (due, shape, pairs_of(p, state, settings), gradient.value.dtype, p.device, alone)
        equal.setdefault(key, EqualLayers(due, [])).layers.append((p, gradient))
    return list(equal.values())


def vectors_by_type(
    params: Iterable[Tensor], gradients: Mapping[Tensor, LiveGradient], settings: LarkSettings
) -> list[list[tuple[Tensor, LiveGradient]]]:
    """The vectors and scalars of a group that have a gradient, by type and device."""
    equal: dict[Any, list[tuple[Tensor, LiveGradient]]] = {}
    for p in params:
        if p in gradients and not matrix_shape(p.shape, settings.read_as):
            key = (gradients[p].value.dtype, p.device)
            equal.setdefault(key, []).append((p, gradients[p]))
    return list(equal.values())


class _Kept(NamedTuple):
    """A stack, the states that share it, and their tensors as views of it."""

    stacked: LayerState
    states: Sequence[State]
    views: list[Tensor]


class LayerStacks:
    """Stacked states, kept between steps so that equal layers are copied together only once.

    The states of single layers are the truth (an optimizer saves and loads them); they are views
    of the stack, and where they no longer are, it is made anew. A state is in one stack at most.
    """

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}  # by each of its states

    def stack(self, states: Sequence[State]) -> LayerState:
        """The states of layers of equal shape as one; that of a single layer as it is."""
        kept = self._kept.get(id(states[0]))
        if kept is not None and len(states) > 1 and _are(states, kept.views):
            return kept.stacked
        for state in states:
            self._dissolve(state)
        if len(states) == 1:
            return LayerState(**{name: states[0][name] for name in _NAMES})
        return LayerState(**{name: _stack([state[name] for state in states]) for name in _NAMES})

    def unstack(self, stacked: LayerState, states: Sequence[State]) -> None:
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

    def _dissolve(self, state: State) -> None:
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


def _are(states: Sequence[State], views: Sequence[Tensor]) -> bool:
    """Whether the states hold just these tensors, in this order."""
    held = [state[name] for state in states for name in _NAMES]
    return len(held) == len(views) and all(x is y for x, y in zip(held, views, strict=True))
