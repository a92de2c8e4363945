"""A constructed rate for each layer, from that layer's block of the Hessian.

For the reproduction study: is one rate for each layer better than one for the network?
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optiscope.objective.evaluation import second_order_backward
from optiscope.optim.spec import OptimizerSpec

__all__ = ["LayerwiseAdaptiveSGD", "layerwise_adaptive_sgd"]


class LayerwiseAdaptiveSGD(Optimizer):
    """SGD with a rate for each tensor of parameters, constructed anew each epoch.

    The rate of tensor l is sum s'y / sum |y|^2 over ``prior_iterations`` batches, with s its
    gradient and y the product of its own block of the Hessian with s: one product a tensor and
    batch. Where that is not positive the rate of before stays.

    Args:
        params: parameters or groups.
        prior_iterations: batches from which rates are constructed.
        estimate_every: steps in an epoch.
        divide: divide every rate by the number of tensors, which bounds the curvature of a step
            of all of them together.
    """

    def __init__(
        self,
        params: Iterable[Any],
        prior_iterations: int = 10,
        estimate_every: int = 100,
        divide: bool = False,
    ) -> None:
        super().__init__(params, {})
        self.parameters = [p for group in self.param_groups for p in group["params"]]
        self.prior_iterations, self.estimate_every = prior_iterations, estimate_every
        self.divisor = len(self.parameters) if divide else 1
        self.steps = self.hessian_products = 0
        self.rates: list[float] = []

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One batch; ``closure`` clears gradients, calls ``backward`` and returns the loss."""
        if closure is None:
            raise RuntimeError("expected a closure, got none: call step(closure)")
        count = self.steps % self.estimate_every
        self.steps += 1
        if count == 0:
            self._sums = [(0.0, 0.0) for _ in self.parameters]
        if count >= self.prior_iterations:
            loss = closure()
        else:
            with second_order_backward():
                loss = closure()
            self._gather()
        if count + 1 == self.prior_iterations:
            self._construct()
        with torch.no_grad():
            for p, rate in zip(self.parameters, self.rates, strict=False):
                if p.grad is not None:
                    p -= rate * p.grad
        return loss

    def _gather(self) -> None:
        for i, p in enumerate(self.parameters):
            g = p.grad
            if g is None or not g.requires_grad:
                continue
            y = self._block_product(g, p)
            s, (sy, yy) = g.detach(), self._sums[i]
            self._sums[i] = (sy + float((s * y).sum()), yy + float(y.square().sum()))
        for p in self.parameters:
            if p.grad is not None:
                p.grad = p.grad.detach()

    def _block_product(self, g: Tensor, p: Tensor) -> Tensor:
        self.hessian_products += 1
        (y,) = torch.autograd.grad(
            g, p, g.detach(), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return y.detach()

    def _construct(self) -> None:
        before = self.rates or [0.0] * len(self.parameters)
        self.rates = [
            sy / yy / self.divisor if sy > 0 else rate
            for (sy, yy), rate in zip(self._sums, before, strict=True)
        ]

    def get_log(self) -> dict[str, Any]:
        """The rates of all tensors."""
        return {f"rate_{i}": rate for i, rate in enumerate(self.rates)}


layerwise_adaptive_sgd = OptimizerSpec(
    "layerwise_adaptive_sgd",
    LayerwiseAdaptiveSGD,
    closure=True,
    steps_per_epoch="estimate_every",
    source="Bald 2019, section on parameter groups",
)
