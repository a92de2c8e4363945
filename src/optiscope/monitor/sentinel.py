"""A sentinel: the small parameter that stands for all of an optimizer, watched at every step."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optiscope.monitor.hooks import Hooks

__all__ = ["Sentinel", "sentinel_of"]

KEPT_STEPS, KEPT_ENTRIES = 5_000, 4_096  # in which, and of how many, a sentinel's values are kept


class Sentinel:
    """One small parameter of an optimizer whose gradient is watched at every backward pass."""

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = weakref.ref(parameter)
        self.hooks = Hooks()
        self.state: tuple[Any, int] | None = None
        self.accumulations = 0
        self.uncleared = 0
        self.added_to = False  # by a backward pass; autograd.grad calls its hooks, adds nothing
        self.since_step = 0
        self.fresh: Tensor | None = None
        self.wants_fresh = False
        self.total = 0
        self.weights: tuple[int, int] | None = None
        self.values: Tensor | None = None

    def left(self, number: int) -> None:
        """Note the weights as step ``number`` leaves them."""
        parameter, kept = self.parameter(), self.values
        self.values = None
        if parameter is not None:
            self.weights = (parameter._version, _address(parameter))
            if number < KEPT_STEPS and parameter.is_cpu and parameter.numel() <= KEPT_ENTRIES:
                if kept is None or kept.shape != parameter.shape or kept.dtype != parameter.dtype:
                    kept = torch.empty_like(parameter, requires_grad=False)
                self.values = kept.copy_(parameter.data)

    def touched(self) -> bool:
        """Whether somebody has changed or replaced the weights since the last step."""
        parameter = self.parameter()
        if parameter is None or self.weights is None:
            return False
        return self.weights != (parameter._version, _address(parameter))

    def remember(self) -> None:
        """Note the gradient as it is now."""
        parameter = self.parameter()
        grad = None if parameter is None else parameter.grad
        self.state = None if grad is None else (grad, grad._version)

    def is_uncleared(self) -> bool:
        """Whether the gradient that is about to be added to is the one remembered."""
        parameter = self.parameter()
        grad = None if parameter is None else parameter.grad
        if self.state is None or grad is None:
            return False
        if grad is not self.state[0] or grad._version != self.state[1]:
            return False
        return bool((grad != 0).any())  # `.grad.data.zero_()` leaves the version as it was


def sentinel_of(optimizer: Optimizer) -> Tensor:
    """The smallest trainable parameter, the last of equals: heads are never skipped."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    trainable = [p for p in parameters if p.requires_grad and p.is_leaf] or parameters
    smallest: Tensor = min(reversed(trainable), key=lambda p: p.numel())
    return smallest


def _address(tensor: Tensor) -> int:
    """Where the values lie; 0 for tensors without memory of their own."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0
