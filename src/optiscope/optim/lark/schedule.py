"""What Lark does when: a group anneals and averages, a layer gathers and renews."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from optiscope.optim.lark.matrix_step import first_length

__all__ = ["Plan", "Turn", "last_renewal", "plan_step", "take_turn"]

_AVERAGING = 8.0  # a step's weight in the average of weights grows as its number to this power


@dataclass(frozen=True)
class Plan:
    """What a group of parameters does in a step.

    Attributes:
        factor: annealing times lr.
        decay: share of a matrix's entries that the step takes away.
        averages: whether weights are averaged.
        share: of the newest weights in their average.
    """

    factor: float | Tensor
    decay: float | Tensor
    averages: bool
    share: float | Tensor


class Turn(NamedTuple):
    """What a layer does with its next gradient.

    Attributes:
        gather: whether the gradient enters the factors.
        elapsed: gradients since factors and length were last renewed, zero where they are not now.
    """

    gather: bool
    elapsed: int


def plan_step(step: int, group: Mapping[str, Any], taken: float | Tensor = 1.0) -> Plan:
    """The plan of a group's step number ``step``, from zero; ``taken`` is zero for a skipped one.

    Without a horizon nothing is annealed, and weights
    are averaged instead, late ones more (polynomial decay of the early ones). Decay goes by the
    first length, not by the layer's own: weights that decay pull gradients along with the momentum,
    so that the length would grow, and with it the decay.

    Source: Shamir and Zhang 2013, for the average.
    """
    horizon = group["horizon"]
    anneal = 1.0 if horizon is None else max(0.0, 1 - step / horizon)
    lr = group["lr"]
    factor = anneal * (lr.reshape(()) if isinstance(lr, Tensor) else lr)
    return Plan(
        factor=factor,
        decay=group["weight_decay"] * first_length(horizon) * factor,
        averages=horizon is None,
        share=(1 + _AVERAGING) / (step + 1 + _AVERAGING) * taken,
    )


def take_turn(seen: int, group: Mapping[str, Any]) -> Turn:
    """The turn of a layer that has seen ``seen`` gradients, on a clock of its own.

    A layer that is often at rest (an expert, a head of one task) would else miss the group's
    renewals. The first gradients all enter the factors.
    """
    every = group["renew_every"]
    elapsed = 0
    if last_renewal(seen, every) == seen:
        elapsed = seen - last_renewal(seen - 1, every) if seen else 1
    return Turn(gather=seen % group["gather_every"] == 0 or seen < every, elapsed=elapsed)


def last_renewal(seen: int, every: int) -> int:
    """The latest of a layer's gradients, up to number ``seen``, that renews its factors and length.

    These are the multiples of ``every``, and before the first of them the powers of two.
    """
    if seen >= every:
        return seen - seen % every
    return 1 << (seen.bit_length() - 1) if seen else 0
