"""What Lark does when: a group anneals and averages, a layer gathers and renews."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from optiscope.optim.lark.matrix_step import first_length
from optiscope.optim.lark.settings import LarkSettings

__all__ = ["Due", "Plan", "duties", "last_renewal", "plan_step"]

_AVERAGING = 8.0  # a step's weight in the average of weights grows as its number to this power


@dataclass(frozen=True)
class Plan:
    """What a group of parameters does in a step.

    Attributes:
        settings: of the group.
        factor: annealing times lr.
        decay: share of a matrix's entries that the step takes away.
        share: of the newest weights in their average; None where weights are not averaged.
    """

    settings: LarkSettings
    factor: float | Tensor
    decay: float | Tensor
    share: float | Tensor | None


class Due(NamedTuple):
    """What is due with a layer's next gradient.

    Attributes:
        gather: whether the gradient enters the factors.
        elapsed: gradients since factors and length were last renewed, zero where they are not now.
    """

    gather: bool
    elapsed: int


def plan_step(step: int, settings: LarkSettings, taken: float | Tensor = 1.0) -> Plan:
    """The plan of a group's step number ``step``, from zero; ``taken`` is zero for a skipped one.

    Without a number of total steps nothing is annealed, and weights are averaged instead, late
    ones more (polynomial decay of the early ones). Decay goes by the first length, not by the
    layer's own: weights that decay pull gradients along with the momentum, so that the length
    would grow, and with it the decay.

    Source: Shamir and Zhang 2013, for the average.
    """
    total, lr = settings.total_steps, settings.lr
    anneal = 1.0 if total is None else max(0.0, 1 - step / total)
    factor = anneal * (lr.reshape(()) if isinstance(lr, Tensor) else lr)
    return Plan(
        settings=settings,
        factor=factor,
        decay=settings.weight_decay * first_length(total) * factor,
        share=(1 + _AVERAGING) / (step + 1 + _AVERAGING) * taken if total is None else None,
    )


def duties(seen: int, settings: LarkSettings) -> Due:
    """What is due in a layer that has seen ``seen`` gradients, on a clock of its own.

    A layer that is often at rest (an expert, a head of one task) would else miss the group's
    renewals. The first gradients all enter the factors.
    """
    every = settings.renew_every
    elapsed = 0
    if last_renewal(seen, every) == seen:
        elapsed = seen - last_renewal(seen - 1, every) if seen else 1
    return Due(gather=seen % settings.gather_every == 0 or seen < every, elapsed=elapsed)


def last_renewal(seen: int, every: int) -> int:
    """The latest of a layer's gradients, up to number ``seen``, that renews its factors and length.

    These are the multiples of ``every``, and before the first of them the powers of two.
    """
    if seen >= every:
        return seen - seen % every
    return 1 << (seen.bit_length() - 1) if seen else 0
