"""Noticing that a model is evaluated without ``optimizer.eval()``.

Without a horizon the weights to evaluate are the average, and those in the model are not. Only the
model knows when it is evaluated, so an optimizer that was made of it leaves a hook there, on the
model itself and not on its parts.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from optiscope.optim.checks import warn_caller

__all__ = ["notice_evaluation"]


def notice_evaluation(model: nn.Module, optimizer: Optimizer) -> None:
    """Warn once where ``model`` is evaluated (in eval mode, without gradients) too early."""
    notice = _Notice(optimizer)
    notice.handle = model.register_forward_pre_hook(notice)


class _Notice:
    """The hook. Copies and pickles of the model do not lead to the optimizer, and say nothing."""

    def __init__(self, optimizer: Optimizer | None = None) -> None:
        self.optimizer = None if optimizer is None else weakref.ref(optimizer)
        self.handle: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Notice, ()

    def __call__(self, model: nn.Module, inputs: Any) -> None:
        if torch.compiler.is_compiling() or self.optimizer is None:
            return
        if model.training or torch.is_grad_enabled():  # trained on, if with frozen statistics
            return
        optimizer = self.optimizer()
        if optimizer is None:  # gone, and its hook with it
            self.handle.remove()
        elif optimizer.state and any(
            group["training"] and group["total_steps"] is None for group in optimizer.param_groups
        ):
            self.handle.remove()
            warn_caller(
                "expected optimizer.eval() before the model is evaluated: without total_steps the "
                "weights to use are an average, and the model holds those of the last step; call "
                "optimizer.train() before training on"
            )
