"""Permutation of one network's units that brings its weights closest to another's.

Weight matching (Ainsworth, Hayase & Srinivasa 2023): units of one group are assigned by a linear
assignment problem while all other groups stand still, until nothing changes. The first pass goes
from what cannot move (inputs and outputs) inwards and compares only weights whose other side is
settled, so that a permuted copy is recognized exactly.

Index legend: U units of a group.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from optiscope.errors import OptiscopeError
from optiscope.landscape.example_input import example_input
from optiscope.landscape.ground import state_of
from optiscope.landscape.unit_tracking import UnitGroup, exchangeable_units

__all__ = ["MatchingError", "UnitMatch", "match_units"]

Permutation = NDArray[np.int64]
"""Unit of b that takes the place of each unit of a [U]."""

SWEEPS = 100
SAME = 1e-9
"""Largest relative difference in float64 between outputs of equal functions."""


class MatchingError(OptiscopeError):
    """Units of two networks that cannot be matched."""


@dataclass(frozen=True)
class UnitMatch:
    """Units of b in the order that brings b closest to a.

    Attributes:
        state_dict: b with its units permuted: the same function, the same numbers in other places.
        distance: Euclidean distance of the parameters to a's, afterwards.
        distance_before: the same before.
        groups: units that could change places, with the tensors they lie in.
        permutations: for each group, the unit of b at each place [U].
        same_function: whether b and its permuted copy give the same outputs on ``example``.
        output_error: largest difference of those outputs, in float64, relative to the largest.
        converged: whether no group can be improved while the others stand still.
        seconds: wall-clock time.
    """

    state_dict: dict[str, Tensor] = field(repr=False)
    distance: float
    distance_before: float
    groups: tuple[UnitGroup, ...] = field(repr=False)
    permutations: tuple[Tensor, ...] = field(repr=False)
    same_function: bool
    output_error: float
    converged: bool
    seconds: float

    @property
    def units(self) -> int:
        """Number of units that could change places."""
        return sum(group.size for group in self.groups)

    @property
    def moved(self) -> int:
        """Number of units that did."""
        return sum(int((order != torch.arange(len(order))).sum()) for order in self.permutations)


def match_units(
    model: nn.Module,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    *,
    inputs: Any = None,
    restarts: int = 3,
    seed: int = 0,
) -> UnitMatch:
    """Permute the units of ``b`` towards ``a``.

    Which units can change places is found by running a copy of the model once: hidden units,
    channels with their batch norm, the units of a residual stream together, recurrent units with
    their gates. Heads of an attention layer stay where they are.

    Args:
        model: the architecture; it is not changed.
        a: state dict of the first network.
        b: that of the second, whose units are permuted.
        inputs: a batch that the model accepts (a tensor, a tuple of arguments or a dictionary of
            them); guessed from the first layer where None.
        restarts: random orders in which the groups are visited; the closest result is returned.
        seed: of the orders.

    Raises:
        MatchingError: a state dict does not fit the model, or a permutation changes the function.
        NoExampleInputError: no inputs are given and none could be guessed.
    """
    begun = time.perf_counter()
    a, b = state_of(a, "a"), state_of(b, "b")
    _loaded(model, b)  # refuses what does not fit
    double = _loaded(model, a)
    args, kwargs = _arguments(example_input(double) if inputs is None else inputs)
    groups = tuple(exchangeable_units(double, args, kwargs))
    trainable = [n for n, p in model.named_parameters() if p.is_floating_point() and n in a]
    left, right = ({name: s[name].detach().double().cpu() for name in trainable} for s in (a, b))
    for name, tensor in ((n, s[n]) for s in (left, right) for n in trainable):
        if not bool(tensor.isfinite().all()):
            raise MatchingError(
                f"expected finite weights, got some in {name!r} that are not: has training "
                "diverged?"
            )
    assignment = _Assignment(groups, left, right)
    identity = [np.arange(group.size) for group in groups]
    before = assignment.distance(identity)
    generator = np.random.default_rng(seed)
    best, shortest, settled = identity, before, not groups
    starts: list[Sequence[Permutation]] = [assignment.from_fixed_units(), identity]
    for start in (starts + [identity] * max(0, restarts - 1))[: restarts + 1] if groups else ():
        orders, converged = assignment.descend(start, generator)
        length = assignment.distance(orders)
        if length < shortest or (length == shortest and not settled):
            best, shortest, settled = orders, length, converged
    moved = _permuted(b, groups, best)
    error = _output_error(model, b, moved, args, kwargs)
    if not error <= SAME:
        raise MatchingError(
            f"expected permuted units to compute the same function, got outputs that differ by "
            f"{error:.1e} of their size: {type(model).__name__} treats units by their place in a "
            "way that is not understood; match its layers by hand"
        )
    return UnitMatch(
        moved,
        shortest,
        before,
        groups,
        tuple(torch.from_numpy(order.copy()) for order in best),
        error <= SAME,
        error,
        settled,
        time.perf_counter() - begun,
    )


def _loaded(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the model in float64 and evaluation mode with these tensors."""
    twin = copy.deepcopy(model).double().eval()
    try:
        twin.load_state_dict(dict(state))
    except RuntimeError as error:
        words = " ".join(str(error).split())
        raise MatchingError(
            f"expected a state dict of {type(model).__name__}, got one that does not fit: "
            f"{words[:160]}"
        ) from None
    return twin


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs as the model's arguments, floating-point tensors in float64."""

    def widened(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    if isinstance(inputs, Mapping):
        return (), {name: widened(value) for name, value in inputs.items()}
    values = inputs if isinstance(inputs, tuple) else (inputs,)
    return tuple(map(widened, values)), {}


def _output_error(
    model: nn.Module,
    state: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> float:
    """Largest difference of two networks' outputs over the largest output, in float64."""
    outputs = []
    for each in (state, other):
        with torch.no_grad():
            found = _loaded(model, each)(*args, **kwargs)
        outputs.append([t for t in tree_leaves(found) if isinstance(t, Tensor)])
    largest = max((float(t.abs().max()) for t in outputs[0] if t.numel()), default=0.0)
    differences = (
        float((x.double() - y.double()).abs().max())
        for x, y in zip(*outputs, strict=True)
        if x.numel()
    )
    difference = max(differences, default=0.0)
    return difference / largest if largest > 0 else difference


def _permuted(
    state: Mapping[str, Tensor], groups: Sequence[UnitGroup], orders: Sequence[Permutation]
) -> dict[str, Tensor]:
    """The state dict with its units in another order."""
    moved = {
        name: value.detach().clone() if isinstance(value, Tensor) else value
        for name, value in state.items()
    }
    for group, order in zip(groups, orders, strict=True):
        for place in group.places:
            tensor = moved[place.tensor]
            index = torch.arange(tensor.shape[place.axis])
            index[place.indices.flatten()] = place.indices[torch.from_numpy(order)].flatten()
            moved[place.tensor] = tensor.index_select(place.axis, index.to(tensor.device))
    return moved


class _Assignment:
    """Distance between a and a permuted b, and how to shorten it group by group.

    Args:
        groups: units that can change places.
        a, b: parameters by name, float64.
    """

    def __init__(
        self, groups: Sequence[UnitGroup], a: Mapping[str, Tensor], b: Mapping[str, Tensor]
    ) -> None:
        self.groups, self.a, self.b = groups, a, b

    def distance(self, orders: Sequence[Permutation]) -> float:
        """Euclidean distance of a and the permuted b."""
        moved = self._moved(orders)
        return math.sqrt(sum(float((self.a[n] - moved[n]).square().sum()) for n in self.a))

    def _moved(self, orders: Sequence[Permutation]) -> dict[str, Tensor]:
        trained = [
            UnitGroup(tuple(p for p in group.places if p.tensor in self.b)) for group in self.groups
        ]
        return _permuted(self.b, trained, orders)

    def _gains(
        self,
        group: int,
        moved: Mapping[str, Tensor],
        order: Permutation,
        settled: Mapping[str, Sequence[Tensor]] | None = None,
    ) -> tuple[NDArray[np.float64], int]:
        """Inner products of unit u of a with unit v of b [U, U], and how many entries each sums.

        Args:
            group: number of the group.
            moved: b, permuted; the group's own order is undone.
            order: of the group, in ``moved``.
            settled: entries along each axis of each tensor that may be compared; None: all.
        """
        size = self.groups[group].size
        total, entries = np.zeros((size, size)), 0
        undo = torch.from_numpy(np.argsort(order))
        for place in self.groups[group].places:
            if place.tensor not in self.a:
                continue
            rows = []
            for tensor, indices in (
                (self.a[place.tensor], place.indices),
                (moved[place.tensor], place.indices[undo]),
            ):
                each = tensor
                if settled is not None:
                    for axis, known in enumerate(settled[place.tensor]):
                        if axis != place.axis:
                            each = each.index_select(axis, known)
                each = each.movedim(place.axis, 0)[indices]  # [U, entries, ...]
                rows.append(each.reshape(size, -1))
            entries += rows[0].shape[1]
            total += (rows[0] @ rows[1].T).numpy()
        return total, entries

    def from_fixed_units(self) -> list[Permutation]:
        """Orders from inputs and outputs inwards, each by weights whose other side is known."""
        orders = [np.arange(group.size) for group in self.groups]
        unsettled = set(range(len(self.groups)))
        while unsettled:
            settled = self._settled(unsettled)
            moved = self._moved(orders)
            found = {k: self._gains(k, moved, orders[k], settled) for k in unsettled}
            best = max(unsettled, key=lambda k: found[k][1])
            orders[best] = linear_sum_assignment(found[best][0], maximize=True)[1]
            unsettled.remove(best)
        return orders

    def _settled(self, unsettled: set[int]) -> dict[str, list[Tensor]]:
        """Entries along each axis of each tensor that belong to no unsettled group."""
        known = {n: [torch.ones(s, dtype=torch.bool) for s in t.shape] for n, t in self.a.items()}
        for k in unsettled:
            for place in self.groups[k].places:
                if place.tensor in known:
                    known[place.tensor][place.axis][place.indices.flatten()] = False
        return {name: [mask.nonzero()[:, 0] for mask in masks] for name, masks in known.items()}

    def descend(
        self, start: Sequence[Permutation], generator: np.random.Generator
    ) -> tuple[list[Permutation], bool]:
        """Improve one group after the other until none can be; and whether that was reached."""
        orders = list(start)
        length = self.distance(orders)
        for _ in range(SWEEPS):
            improved = False
            for k in generator.permutation(len(self.groups)).tolist():
                gains, _ = self._gains(k, self._moved(orders), orders[k])
                order = linear_sum_assignment(gains, maximize=True)[1]
                trial = [*orders[:k], order, *orders[k + 1 :]]
                shorter = self.distance(trial)
                if shorter < length * (1 - 1e-12):
                    orders, length, improved = trial, shorter, True
            if not improved:
                return orders, True
        return orders, False
