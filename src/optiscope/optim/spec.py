"""What a study needs to know of an optimizer: how to make it, and what may be tuned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer

__all__ = ["Choice", "OptimizerSpec", "Range"]


@dataclass(frozen=True)
class Range:
    """An interval [low, high] of a hyperparameter, sampled on a logarithmic or linear scale.

    ``points`` is how many a grid takes in it; None leaves it to the budget.
    """

    low: float
    high: float
    log: bool = True
    points: int | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"expected low < high, got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low > 0, got low={self.low}")


@dataclass(frozen=True)
class Choice:
    """A finite list of values of a hyperparameter."""

    values: Sequence[Any]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a choice needs at least one value, got none")


@dataclass(frozen=True)
class OptimizerSpec:
    """A named optimizer: factory, defaults, search space, and what it needs from the loop.

    Attributes:
        name: word by which studies name it.
        make: ``make(params_or_groups, **hyperparameters)`` -> ``torch.optim.Optimizer``.
        defaults: hyperparameters always passed unless overridden.
        space: what is tuned when a study does not say otherwise; empty for untuned methods.
        closure: the loop must call ``step(closure)``.
        horizon: name of the argument that takes the horizon in steps, if there is one.
        steps_per_epoch: name of the argument that takes the steps in an epoch, if there is one.
        source: paper or package.
        version: raised whenever a change alters what the optimizer does; part of every trial's
            hash. None for a first version, and for those that others keep: the versions of their
            packages are in the record.
    """

    name: str
    make: Callable[..., Optimizer]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Range | Choice] = field(default_factory=dict)
    closure: bool = False
    horizon: str | None = None
    steps_per_epoch: str | None = None
    source: str = ""
    version: int | None = None
