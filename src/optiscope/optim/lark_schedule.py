"""What Lark does when: annealing, averaging, renewals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from optiscope.optim.lark_layers import first_length

__all__ = ["Plan", "last_renewal", "plan_step"]

_AVERAGING = 8.0  # a step's weight in the average of weights grows as its number to this power


@dataclass(frozen=True)
class Plan:
    """What a group of parameters does in a step.

    Attributes:
        gather: whether the gradient enters the factors.
        elapsed: steps since factors and lengths were last renewed, zero where they are not now.
        factor: annealing times lr.
        decay: share of a matrix's entries that the step takes away.
        averages: whether weights are averaged.
        share: of the newest weights in their average.
    """

    gather: bool
    elapsed: int
    factor: float | Tensor
    decay: float | Tensor
    averages: bool
    share: float | Tensor


def plan_step(step: int, group: Mapping[str, Any], taken: float | Tensor = 1.0) -> Plan:
    """The plan of a group's step number ``step``, from zero; ``taken`` is zero for a skipped one.

    The first gradients all enter the factors. Without a horizon nothing is annealed, and weights
    are averaged instead, late ones more (polynomial decay of the early ones). Decay goes by the
    first length, not by the layer's own: weights that decay pull gradients along with the momentum,
    so that the length would grow, and with it the decay.

    Source: Shamir and Zhang 2013, for the average.
    """
    horizon, every = group["horizon"], group["renew_every"]
    anneal = 1.0 if horizon is None else max(0.0, 1 - step / horizon)
    factor = anneal * group["lr"]
    elapsed = 0
    if last_renewal(step, every) == step:
        elapsed = step - last_renewal(step - 1, every) if step else 1
    return Plan(
        gather=step % group["gather_every"] == 0 or step < every,
        elapsed=elapsed,
        factor=factor,
        decay=group["weight_decay"] * first_length(horizon) * factor,
        averages=horizon is None,
        share=(1 + _AVERAGING) / (step + 1 + _AVERAGING) * taken,
    )


def last_renewal(step: int, every: int) -> int:
    """The latest step up to ``step`` at which factors and lengths are renewed.

    These are the multiples of ``every``, and before the first of them the powers of two.
    """
    if step >= every:
        return step - step % every
    return 1 << (step.bit_length() - 1) if step else 0
