"""Saddle-free Newton with the full Hessian: a Newton step that moves away from saddles.

The step is -|H|⁻¹ g, where |H| has the eigenvectors of H and the absolute values of its
eigenvalues. Newton's own step -H⁻¹ g is drawn to saddles; this one leaves them, twice as far from
the saddle with every step along a direction of negative curvature, however small the curvature.

Source: Dauphin et al. 2014. For a handful of parameters only: a step costs 2 D gradients and D³.

Index legend: D parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optiscope.optim.checks import moves_nothing, refuse_sharded
from optiscope.optim.foreign_keys import refuse_foreign_keys
from optiscope.optim.spec import OptimizerSpec, Range

__all__ = ["SPEC", "SaddleFreeNewton"]


class SaddleFreeNewton(Optimizer):
    """w ← w - lr · |H|⁻¹ g, with H from central differences of the gradient.

    Args:
        params: parameters or groups; all are treated as one vector.
        lr: 1 for the full step.
        damping: added to every absolute eigenvalue.
        difference: length of the steps between which gradients are compared.
        radius: longest step; |H| says nothing about how far it may be trusted where an eigenvalue
            passes through zero.
        absolute: take the eigenvalues' absolute values; False gives Newton's method.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        damping: float = 1e-6,
        difference: float = 1e-3,
        radius: float = 1.0,
        absolute: bool = True,
    ) -> None:
        if min(lr, difference, radius) <= 0 or damping < 0:
            raise ValueError(
                "lr, difference and radius must be positive and damping not negative, "
                f"got lr={lr}, difference={difference}, radius={radius}, damping={damping}"
            )
        super().__init__(params, {"lr": lr})
        self.damping, self.difference, self.radius = damping, difference, radius
        self.absolute = absolute

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with their settings; refuses shards and keys that it does not honor."""
        refuse_foreign_keys("SaddleFreeNewton", param_group, ("lr",))
        super().add_param_group(param_group)
        refuse_sharded("SaddleFreeNewton", self.param_groups[-1]["params"])

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure`` clears gradients, calls ``backward()`` and returns the loss."""
        for group in self.param_groups:
            refuse_foreign_keys("SaddleFreeNewton", group, ("lr",))
        if closure is None and moves_nothing(self.param_groups):
            return None
        if closure is None:
            raise ValueError("SaddleFreeNewton needs a closure: call step(closure)")
        parameters = [p for group in self.param_groups for p in group["params"]]
        loss, gradient = closure(), _gradient(parameters)
        here = nn.utils.parameters_to_vector(parameters).detach().clone()
        columns = []
        for direction in torch.eye(len(here), dtype=here.dtype, device=here.device):
            ends = []
            for sign in (1.0, -1.0):
                _move(parameters, here + sign * self.difference * direction)
                closure()
                ends.append(_gradient(parameters))
            columns.append((ends[0] - ends[1]) / (2 * self.difference))
        hessian = torch.stack(columns)
        values, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.T))
        divisor = (values.abs() if self.absolute else values) + self.damping
        update = self.param_groups[0]["lr"] * vectors @ ((vectors.T @ gradient) / divisor)
        _move(parameters, here - update / (update.norm() / self.radius).clamp(min=1.0))
        return loss


def _gradient(parameters: list[Tensor]) -> Tensor:
    """All gradients as one vector [D]."""
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return torch.cat([g.flatten() for g in found]).clone()


@torch.no_grad()
def _move(parameters: list[Tensor], point: Tensor) -> None:
    nn.utils.vector_to_parameters(point, parameters)


SPEC = OptimizerSpec(
    "optiscope.optim.saddle_free_newton:SPEC",
    SaddleFreeNewton,
    space={"lr": Range(0.1, 1.0)},
    closure=True,
    source="Dauphin et al. 2014",
)
