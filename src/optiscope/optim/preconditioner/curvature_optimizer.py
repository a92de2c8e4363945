"""Driving an optimizer that asks for Hessian products in some of its steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optiscope.objective.closure_source import CurvatureSource, detach_gradients
from optiscope.optim.checks import end_if_hopeless, moves_nothing, warn_caller
from optiscope.optim.preconditioner.estimate import Counts, Estimate
from optiscope.optim.preconditioner.gradient_edits import (
    NonFiniteGradientError,
    add_decay,
    gradients_finite,
)
from optiscope.optim.preconditioner.wrapped_optimizer import WrappedOptimizer

__all__ = ["CurvatureOptimizer"]


class CurvatureOptimizer(WrappedOptimizer):
    """Optimizer whose steps may need products of the batch's Hessian with vectors [N].

    Second derivatives are asked for in the steps that need them, and only there.

    Args:
        params: parameters or groups.
        lr: rate of the first epoch, or the rate.
        weight_decay: L2 coefficient, part of the objective and so of the Hessian.
        optim_class: inner optimizer.
        settings: its settings.
        source: of the products.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None,
        weight_decay: float,
        optim_class: type[Optimizer],
        settings: dict[str, Any],
        source: CurvatureSource,
    ) -> None:
        self._source, self._estimate, self._counts = source, Estimate(), Counts()
        self._source.forget()
        super().__init__(params, lr, weight_decay, optim_class, settings)

    @abstractmethod
    def _wants_products(self) -> bool:
        """Whether the coming step needs Hessian products; asked again within the step."""

    @abstractmethod
    def _advance(self, wanted: bool) -> None:
        """One step; ``wanted`` is what ``_wants_products`` said.

        Raises:
            NonFiniteGradientError: a gradient turned out not to be finite; nothing has changed.
        """

    def backward(self, loss: Tensor, scaler: Any = None) -> None:
        """Gradients of ``loss``, in place of ``loss.backward()``.

        Keeps the graph of the gradient in the steps that need Hessian products, and only there.

        Args:
            loss: scalar.
            scaler: ``torch.amp.GradScaler``, in place of ``scaler.scale(loss).backward()``.
        """
        scaled = loss if scaler is None else scaler.scale(loss)
        if self._wants_products():
            scale = 1.0 if scaler is None else float(scaler.get_scale())
            self._source.backward(scaled, scale, self._flat)
        else:
            scaled.backward()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients, and graphs kept for a step that was never taken (an overflow)."""
        super().zero_grad(set_to_none)
        self._source.forget_graphs()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update, or one batch of an estimation and an update; returns the closure's loss.

        Args:
            closure: clears gradients, calls ``backward`` and returns the loss. May be called twice,
                with the same random numbers.
        """
        kind = self._flat.device.type
        if not torch.is_autocast_enabled(kind):
            return self._step(closure)
        inside = None if closure is None else _cast(closure, kind)
        with torch.autocast(kind, enabled=False):
            return self._step(inside)

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        for group in self.param_groups:
            self._refuse_foreign(group)
        if closure is None and moves_nothing(self.param_groups):
            return None
        counts = self._counts
        wanted = self._wants_products()
        loss = None
        if closure is not None:
            counts.gradients += 1
            with torch.enable_grad():
                loss = self._source.evaluate(closure, self._flat) if wanted else closure()
            if all(p.grad is None for p in self._flat.parameters):
                raise RuntimeError(
                    "expected a closure that computes gradients, got none after calling it: call "
                    "loss.backward() in it and return the loss"
                )
        try:
            if not gradients_finite(self._flat):
                raise NonFiniteGradientError
            self._advance(wanted)
            counts.skipped_in_row = 0
        except NonFiniteGradientError:
            self._skip()
        finally:
            counts.steps += 1
            self._source.forget()
        return loss

    @property
    def hessian_products(self) -> int:
        """Hessian products computed so far."""
        return self._counts.hessian_products

    def _skip(self) -> None:
        counts = self._counts
        detach_gradients(self._flat)
        counts.skipped += 1
        counts.skipped_in_row += 1
        end_if_hopeless(counts.skipped_in_row)
        if counts.skipped_in_row == 1:
            warn_caller("non-finite gradient: batch left out")

    def _total_gradient(self) -> Tensor:
        """Gradient of the objective [N], weight decay included."""
        g, flat = self._flat.gradient(), self._flat
        if not any(group["weight_decay"] for group in self.param_groups):
            return g
        return add_decay(g, flat.join(flat.parameters), self.param_groups, flat)

    def _product(self, v: Tensor) -> Tensor:
        """Hessian of this batch's objective times v [N], weight decay included."""
        self._counts.hessian_products += 1
        y = self._source.product(v, self._flat)
        return add_decay(y, v, self.param_groups, self._flat)


def _cast(closure: Callable[[], Any], kind: str) -> Callable[[], Any]:
    """The closure under the autocast of this moment, whose cast weights are not kept.

    An evaluation at other weights would see those of the first one.
    """
    dtype = torch.get_autocast_dtype(kind)

    def evaluate() -> Any:
        with torch.autocast(kind, dtype=dtype, cache_enabled=False):
            return closure()

    return evaluate
