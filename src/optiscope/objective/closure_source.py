"""Where an optimizer's Hessian products come from: a closure, or graphs kept by ``backward``.

Index legend: N parameters in all; vectors [N] are flat.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.objective import FlatParameters
from optiscope.objective.evaluation import (
    RandomState,
    leaves,
    modules_called,
    second_order_backward,
    twice_differentiable,
    unchanged_buffers,
)
from optiscope.objective.products import (
    NoSecondDerivativesError,
    check_repeatable,
    difference_product,
    graph_product,
)

__all__ = ["HESSIANS", "CurvatureSource"]

HESSIANS = ("auto", "exact", "difference")


class CurvatureSource:
    """Products of the Hessian of the batch at hand with vectors [N], however the step allows.

    Args:
        hessian: ``exact``, by ``difference`` of gradients, or ``auto``: exact where the model has
            second derivatives, else by difference.
        check_deterministic: compare two evaluations of the closure before the first difference.
    """

    def __init__(self, hessian: str, check_deterministic: bool) -> None:
        if hessian not in HESSIANS:
            raise ValueError(
                f"hessian must be one of {', '.join(HESSIANS)}, got {hessian!r}: 'difference' "
                "needs a closure, 'exact' needs second derivatives"
            )
        self.hessian, self.check_deterministic = hessian, check_deterministic
        self.length = 0.0  # norm of the next difference's perturbation; 0 before the first
        self._by_difference = hessian == "difference"
        self._repeatable = False
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        transient: dict[str, Any] = {
            "_closure": None,
            "_random": None,
            "_graphs": [],
            "_modules": [],
        }
        return {**self.__dict__, **transient}

    def to_dict(self) -> dict[str, Any]:
        """What has been found out about the model, to be saved."""
        return {"length": self.length, "by_difference": self._by_difference}

    def take(self, saved: dict[str, Any]) -> None:
        """Go on with what ``to_dict`` gave."""
        self.length = saved["length"]
        if self.hessian == "auto":
            self._by_difference = saved["by_difference"]

    def forget(self) -> None:
        """Drop the batch at hand."""
        self._closure: Callable[[], Any] | None = None
        self._random: RandomState | None = None
        self._modules: list[nn.Module] = []
        self._twice = True  # whether the closure's loss can be differentiated twice
        self.forget_graphs()

    def forget_graphs(self) -> None:
        """Drop the graphs kept by ``backward``."""
        self._graphs: list[tuple[list[Tensor | None], float]] = []

    def backward(self, loss: Tensor, scale: float, flat: FlatParameters) -> None:
        """Accumulate gradients of ``loss`` and keep their graph; ``scale`` is a factor in it."""
        if self.hessian == "difference":
            raise RuntimeError(
                "expected a closure: hessian='difference' evaluates the loss again; call "
                "opt.step(closure), or use hessian='auto'"
            )
        if not twice_differentiable(loss):
            raise NoSecondDerivativesError
        if _cleared(flat):
            self.forget_graphs()  # of a step that was never taken
        if world_size() > 1:
            # Hooks that average gradients over ranks keep no graph: this rank's own is kept.
            loss.backward(retain_graph=True)
            moving = [p for p in flat.parameters if p.requires_grad]
            found = torch.autograd.grad(loss, moving, create_graph=True, allow_unused=True)
            own = dict(zip(map(id, moving), found, strict=True))
            self._graphs.append(([own.get(id(p)) for p in flat.parameters], scale))
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Using backward.. with create_graph")
            loss.backward(create_graph=True)
        self._graphs.append(([p.grad for p in flat.parameters], scale))
        for p in flat.parameters:
            if p.grad is not None:
                p.grad = p.grad.detach().clone()
        _detach(leaves(loss))

    def evaluate(self, closure: Callable[[], Any], flat: FlatParameters) -> Any:
        """The closure's loss, evaluated so that products can follow."""
        self._closure, self._random = closure, RandomState.now([flat.device])
        if world_size() > 1 and self.hessian == "auto":
            self._by_difference = True  # gradients averaged over ranks keep no graph
        reached: dict[int, Tensor] = {}
        self._twice = True

        def look_at(loss: Tensor) -> None:
            if not reached and not _cleared(flat):
                raise RuntimeError(
                    "expected a closure that clears gradients, got those of other batches too: "
                    "curvature would be of the last batch alone; evaluate all in one closure, or "
                    "accumulate with opt.backward(loss) in place of loss.backward()"
                )
            self._twice = self._twice and twice_differentiable(loss)
            reached.update((id(leaf), leaf) for leaf in leaves(loss))

        with ExitStack() as stack:
            self._modules = stack.enter_context(modules_called())
            if not self._by_difference:
                stack.enter_context(second_order_backward(look_at))
            loss = closure()
        if isinstance(loss, Tensor):  # its backward pass may have been started otherwise
            self._twice = self._twice and twice_differentiable(loss)
        own = set(map(id, flat.parameters))
        _detach(leaf for place, leaf in reached.items() if place not in own)
        return loss

    def available(self, flat: FlatParameters) -> bool:
        """Whether this step can give products."""
        return bool(self._graphs) or self._closure is not None or _has_graph(flat)

    def product(self, v: Tensor, flat: FlatParameters) -> Tensor:
        """Hessian of the batch's loss times v [N]."""
        if self._graphs:
            parts = [graph_product(g, flat, v).div_(scale) for g, scale in self._graphs]
            return average_over_ranks(sum(parts[1:], parts[0]))
        if self._twice and _has_graph(flat):
            try:
                return graph_product([p.grad for p in flat.parameters], flat, v)
            except NoSecondDerivativesError:
                if self.hessian == "exact" or self._closure is None:
                    raise
        if self._closure is None:
            raise RuntimeError(
                "this step estimates curvature and needs second derivatives: call "
                "opt.backward(loss) in place of loss.backward(), or pass a closure to step"
            )
        if self.hessian == "exact":
            raise RuntimeError(
                "the closure's gradients carry no graph (gradients averaged over ranks, or a loss "
                "without second derivatives): use hessian='auto' or 'difference'"
            )
        return self._difference(v, flat)

    def _difference(self, v: Tensor, flat: FlatParameters) -> Tensor:
        assert self._closure is not None
        assert self._random is not None
        detach_gradients(flat)
        g = flat.gradient()
        modules = self._modules
        if not self._by_difference:  # the gradient came from other kernels: once more
            self._by_difference = True
            with unchanged_buffers(modules), self._random.replayed(), torch.enable_grad():
                self._closure()
            g = flat.gradient()
        if self.check_deterministic and not self._repeatable:
            check_repeatable(self._closure, flat, g, self._random, modules)
            self._repeatable = True
        if self.length == 0:
            eps = max(torch.finfo(p.dtype).eps for p in flat.parameters)
            self.length = math.sqrt(eps) * (1 + flat.norm())
        y = difference_product(self._closure, flat, g, v, self.length, self._random, modules)
        self.length = self._next_length(g, v, y, flat)
        return y

    def _next_length(self, g: Tensor, v: Tensor, y: Tensor, flat: FlatParameters) -> float:
        """Perturbation under which the gradient would have changed by eps^(1/3) of itself.

        Between rounding, which is worse below, and third derivatives, which are worse above.
        """
        norm = torch.linalg.vector_norm
        change, size = self.length * float(norm(y) / norm(v)), float(norm(g))
        if not (change > 0 and size > 0 and math.isfinite(change / size)):
            return self.length
        eps = max(torch.finfo(p.dtype).eps for p in flat.parameters)
        factor = min(max(eps ** (1 / 3) * size / change, 0.1), 10.0)
        return float(max(self.length * factor, 100 * eps * (1 + flat.norm())))


def _has_graph(flat: FlatParameters) -> bool:
    return any(p.grad is not None and p.grad.requires_grad for p in flat.parameters)


def _cleared(flat: FlatParameters) -> bool:
    return all(p.grad is None or not bool(p.grad.any()) for p in flat.parameters)


def detach_gradients(flat: FlatParameters) -> None:
    """Cut the gradients' graphs, which would otherwise live as long as the gradients."""
    _detach(flat.parameters)


def _detach(parameters: Iterable[Tensor]) -> None:
    for p in parameters:
        if p.grad is not None and p.grad.requires_grad:
            p.grad = p.grad.detach()


def world_size() -> int:
    """Processes that train together, 1 without ``torch.distributed``."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    return 1


def average_over_ranks(vector: Tensor) -> Tensor:
    """Mean of a vector over the processes that train together."""
    if world_size() > 1:
        torch.distributed.all_reduce(vector)
        vector /= world_size()
    return vector
