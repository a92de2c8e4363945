"""What a study needs to know of an optimizer: how to make it, and what may be tuned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.optim import Optimizer

__all__ = ["Choice", "OptimizerSpec", "Range"]


@dataclass(frozen=True)
class Range:
    """An interval [low, high] of a hyperparameter, sampled on a logarithmic or linear scale.

    ``points`` is how many a grid takes in it; None leaves it to the budget. An ``integer`` range
    holds the integers from low to high, both included.
    """

    low: float
    high: float
    log: bool = True
    points: int | None = None
    integer: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"expected low < high, got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(
                f"a logarithmic range needs low > 0, got low={self.low}: or say log = false"
            )
        if self.integer and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ValueError(
                f"a range of integers needs integers as its ends, got {self.low} and {self.high}"
            )

    def grid(self, points: int) -> list[float]:
        """``points`` values at even distances on the range's scale, both ends included.

        One point is the middle. An integer range gives the nearest integers, each once, so that
        there may be fewer.
        """
        low, high = self.low, self.high
        if points == 1:
            values = [math.sqrt(low * high) if self.log else (low + high) / 2]
        else:
            space = np.geomspace if self.log else np.linspace
            values = [low, *[float(v) for v in space(low, high, points)][1:-1], high]
        return sorted({round(v) for v in values}) if self.integer else values

    def at(self, share: float) -> float:
        """The value at a share in [0, 1) of the way from low to high, on the range's scale."""
        low, high = self.low, self.high + 1 if self.integer else self.high
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        return min(math.floor(value), int(self.high)) if self.integer else float(value)


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
        former: arguments that were renamed, by their former names, which trials may still use.
        source: paper or package.
        version: raised whenever a change alters what the optimizer does; part of every trial's
            hash. None for a first version, and for those that others keep: the versions of their
            packages are in the record.
        create_graph: the loop must call ``backward(create_graph=True)``, for optimizers that
            differentiate the gradient (AdaHessian, SophiaH).
        loss: the loop must call ``step(loss=loss)``.
        named: the parameters come with their names: ``make`` gets ``model.named_parameters()`` as
            a list of pairs, or groups whose ``params`` are such lists.
        model: name of the argument that takes the model, if there is one; where it is the first,
            no parameters are passed besides.
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
    create_graph: bool = False
    loss: bool = False
    named: bool = False
    model: str | None = None
    former: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.closure and (self.create_graph or self.loss):
            raise ValueError(
                f"expected closure or create_graph and loss in the OptimizerSpec {self.name!r}, "
                "got both: where step is given a closure, the closure's loss comes from it"
            )
