"""A constructed rate for each layer: from its block of the Hessian, or its share of a product.

For the reproduction study: is one rate for each layer better than one for the network?
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optiscope.objective.evaluation import second_order_backward
from optiscope.optim.checks import refuse_sharded
from optiscope.optim.foreign_keys import refuse_foreign_keys
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
        split: let y be the tensor's share of one product with all gradients, so that what other
            tensors' steps do to its gradient counts: one product a batch.
    """

    def __init__(
        self,
        params: Iterable[Any],
        prior_iterations: int = 10,
        estimate_every: int = 100,
        divide: bool = False,
        split: bool = False,
    ) -> None:
        super().__init__(params, {})
        self.parameters = [p for group in self.param_groups for p in group["params"]]
        self.prior_iterations, self.estimate_every = prior_iterations, estimate_every
        self.split = split
        self.divisor = len(self.parameters) if divide else 1
        self.steps = self.hessian_products = 0
        self.rates: list[float] = []

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; refuses shards and settings of torch's optimizers, which it has not."""
        refuse_foreign_keys("LayerwiseAdaptiveSGD", param_group, ())
        super().add_param_group(param_group)
        refuse_sharded("LayerwiseAdaptiveSGD", self.param_groups[-1]["params"])

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
        kept = [(i, p, p.grad) for i, p in enumerate(self.parameters) if p.grad is not None]
        kept = [(i, p, g) for i, p, g in kept if g.requires_grad]
        gradients = [g for _, _, g in kept]
        if self.split:
            products = self._products(gradients, [p for _, p, _ in kept])
        else:
            products = [self._products([g], [p])[0] for _, p, g in kept]
        for (i, _, g), y in zip(kept, products, strict=True):
            s, (sy, yy) = g.detach(), self._sums[i]
            self._sums[i] = (sy + float((s * y).sum()), yy + float(y.square().sum()))
        for p in self.parameters:
            if p.grad is not None:
                p.grad = p.grad.detach()

    def _products(self, gradients: Sequence[Tensor], of: Sequence[Tensor]) -> list[Tensor]:
        """Hessian of these tensors together times their gradients."""
        self.hessian_products += 1
        found = torch.autograd.grad(
            gradients,
            of,
            [g.detach() for g in gradients],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return [y.detach() for y in found]

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
