"""Hessian-vector products of a loss given as a closure, or as the graph of its gradient.

Index legend: N parameters in all, flattened and concatenated in the order given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from optiscope.errors import OptiscopeError
from optiscope.objective.evaluation import (
    NonDeterministicLossError,
    RandomState,
    unchanged_buffers,
)

__all__ = [
    "FlatParameters",
    "NoSecondDerivativesError",
    "check_repeatable",
    "difference_product",
    "graph_product",
]


class NoSecondDerivativesError(OptiscopeError, RuntimeError):
    """The gradient of the model cannot be differentiated again."""

    def __init__(self) -> None:
        super().__init__(
            "the model has no second derivatives (compiled, fused or once-differentiable "
            "kernels): pass a closure to step, with hessian='auto' or 'difference', or use plain "
            "kernels"
        )


_REPEATABLE = 0.05  # largest relative change of a repeated gradient; another batch gives about 1


@dataclass(frozen=True)
class FlatParameters:
    """Parameters of a model seen as one vector [N].

    Vectors have the widest of the parameters' types, and at least float32.
    """

    parameters: tuple[Tensor, ...]

    @staticmethod
    def of(parameters: Iterable[Tensor]) -> FlatParameters:
        """View of ``parameters``, which must be real, dense and on one device."""
        found = tuple(parameters)
        devices = sorted({str(p.device) for p in found})
        if len(devices) > 1:
            raise ValueError(f"expected all parameters on one device, got {', '.join(devices)}")
        for p in found:
            if p.is_complex() or not p.is_floating_point():
                todo = "leave out what has no gradient"
                if p.is_complex():
                    todo = "view complex weights as real ones (torch.view_as_real)"
                raise ValueError(f"expected real floating-point parameters, got {p.dtype}: {todo}")
        return FlatParameters(found)

    @property
    def size(self) -> int:
        """Number of entries N."""
        return sum(p.numel() for p in self.parameters)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the vectors."""
        dtype = torch.float32
        for p in self.parameters:
            dtype = torch.promote_types(dtype, p.dtype)
        return dtype

    @property
    def device(self) -> torch.device:
        """Device of the vectors."""
        return self.parameters[0].device if self.parameters else torch.device("cpu")

    def join(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """One vector [N] of one tensor a parameter; None counts as zeros."""
        out = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for piece, tensor in zip(self.split(out), tensors, strict=True):
            if tensor is not None:
                piece.copy_(tensor.detach())
        return out

    def split(self, vector: Tensor) -> list[Tensor]:
        """Views of a vector [N] in the parameters' shapes."""
        pieces = vector.split([p.numel() for p in self.parameters])
        return [piece.view(p.shape) for piece, p in zip(pieces, self.parameters, strict=True)]

    def gradients(self) -> list[Tensor | None]:
        """The parameters' ``grad``, None where there is none.

        Raises:
            RuntimeError: one of them is sparse.
        """
        grads = [p.grad for p in self.parameters]
        for g in grads:
            if g is not None and g.layout != torch.strided:
                raise RuntimeError(
                    f"expected dense gradients, got a sparse one of shape {list(g.shape)}: make "
                    "the embedding with sparse=False"
                )
        return grads

    def gradient(self) -> Tensor:
        """The parameters' ``grad`` as a vector [N]."""
        return self.join(self.gradients())

    def norm(self) -> float:
        """Euclidean norm of the parameters."""
        if not self.parameters:
            return 0.0
        norms = torch._foreach_norm([p.detach() for p in self.parameters])
        return math.hypot(*(float(n) for n in norms))


def graph_product(gradient: Sequence[Tensor | None], flat: FlatParameters, v: Tensor) -> Tensor:
    """Exact product Hv [N] by differentiating a gradient whose graph was kept.

    Args:
        gradient: one tensor a parameter, None where the loss does not depend on it.
        flat: the parameters.
        v: vector [N].

    Raises:
        NoSecondDerivativesError: some operation in the graph has none.
    """
    pairs = [
        (g, piece)
        for g, piece in zip(gradient, flat.split(v), strict=True)
        if g is not None and g.requires_grad
    ]
    if not pairs:
        return torch.zeros_like(v)
    moving = [p for p in flat.parameters if p.requires_grad]
    try:
        with torch.enable_grad():
            found = torch.autograd.grad(
                [g for g, _ in pairs],
                moving,
                [piece.to(g.dtype) for g, piece in pairs],
                retain_graph=True,
                allow_unused=True,
            )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if "allocate memory" in str(error):
            raise
        if "modified by an inplace operation" in str(error):
            raise RuntimeError(
                "weights changed between the backward pass and this product, as by another "
                "optimizer's step: step this one first"
            ) from error
        raise NoSecondDerivativesError from error
    products = dict(zip(map(id, moving), found, strict=True))
    return flat.join([products.get(id(p)) for p in flat.parameters])


def _gradient_again(
    closure: Callable[[], object],
    flat: FlatParameters,
    shift: Tensor,
    random: RandomState,
    modules: Iterable[nn.Module],
) -> Tensor:
    """Gradient [N] at the parameters plus ``shift`` [N]; everything touched is put back."""
    kept = [p.detach().clone() for p in flat.parameters]
    grads = [p.grad for p in flat.parameters]
    values = [None if g is None else g.detach().clone() for g in grads]
    try:
        with torch.no_grad():
            for p, piece in zip(flat.parameters, flat.split(shift), strict=True):
                p.add_(piece.to(p.dtype))
        with random.replayed(), unchanged_buffers(modules), torch.enable_grad():
            closure()
        return flat.gradient()
    finally:
        with torch.no_grad():
            for p, weights, grad, value in zip(flat.parameters, kept, grads, values, strict=True):
                p.copy_(weights)
                if grad is not None and value is not None:
                    grad.copy_(value)
                p.grad = grad


def difference_product(
    closure: Callable[[], object],
    flat: FlatParameters,
    gradient: Tensor,
    v: Tensor,
    length: float,
    random: RandomState,
    modules: Iterable[nn.Module] = (),
) -> Tensor:
    """Product Hv [N] as a difference of gradients, (g(w + h v) - g(w)) / h; one gradient's cost.

    Parameters, their gradients, buffers of ``modules`` and the random generators come back
    unchanged, whatever happens in between.

    Args:
        closure: clears gradients, computes the loss and calls ``backward``.
        flat: the parameters.
        gradient: g(w) [N], of the same batch.
        v: vector [N].
        length: norm of the perturbation h v.
        random: state of the generators before the closure's first evaluation.
        modules: modules with buffers that an evaluation changes.

    As of the exact product, entries of ``v`` on parameters that are frozen do not count.
    """
    if not all(p.requires_grad for p in flat.parameters):
        pieces = zip(flat.parameters, flat.split(v), strict=True)
        v = flat.join([piece if p.requires_grad else None for p, piece in pieces])
    norm = float(torch.linalg.vector_norm(v))
    if not (norm > 0 and math.isfinite(norm)):
        return torch.zeros_like(v)
    h = length / norm
    moved = _gradient_again(closure, flat, v * h, random, modules)
    return moved.sub_(gradient).div_(h)


def check_repeatable(
    closure: Callable[[], object],
    flat: FlatParameters,
    gradient: Tensor,
    random: RandomState,
    modules: Iterable[nn.Module] = (),
) -> None:
    """Raise unless the closure gives the gradient [N] again at the same parameters."""
    again = _gradient_again(closure, flat, torch.zeros_like(gradient), random, modules)
    size = float(torch.linalg.vector_norm(gradient))
    change = float(torch.linalg.vector_norm(again.sub_(gradient)))
    if math.isfinite(size) and not change <= _REPEATABLE * size:
        raise NonDeterministicLossError(
            "expected the closure to repeat its gradient at the same parameters, got a relative "
            f"change of {change / size if size else math.inf:.2g}: draw the batch outside the "
            "closure, clear gradients inside it, or pass check_deterministic=False"
        )
