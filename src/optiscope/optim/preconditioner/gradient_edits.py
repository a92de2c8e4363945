"""Operations on the gradients that parameters hold: added decay, preconditioning, a health check.

Index legend: N parameters in all, K rows of a basis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optiscope.errors import OptiscopeError
from optiscope.objective import FlatParameters

__all__ = [
    "NonFiniteGradientError",
    "add_decay",
    "add_decay_to_gradients",
    "gradient_norm",
    "gradients_finite",
    "precondition",
    "require_finite",
]

_SMALL = 1 << 14  # entries up to which a gradient is looked at for non-finite values

Groups = Iterable[Mapping[str, Any]]


class NonFiniteGradientError(OptiscopeError, FloatingPointError):
    """A gradient that passed the first look holds inf or nan: the batch is to be left out."""


def add_decay(vector: Tensor, of: Tensor, groups: Groups, flat: FlatParameters) -> Tensor:
    """``vector`` [N] plus each group's weight decay times ``of`` [N], in place.

    Parameters without a gradient do not move, so that their decay is no part of the objective.
    """
    pieces = iter(zip(flat.split(vector), flat.split(of), strict=True))
    for group in groups:
        for p in group["params"]:
            target, source = next(pieces)
            if group["weight_decay"] and p.grad is not None:
                target.add_(source, alpha=group["weight_decay"])
    return vector


def add_decay_to_gradients(groups: Groups) -> None:
    """Add each group's weight decay times the parameters to their gradients."""
    for group in groups:
        held = [p for p in group["params"] if p.grad is not None]
        if group["weight_decay"] and held:
            torch._foreach_add_([p.grad for p in held], held, alpha=group["weight_decay"])


def precondition(basis: Tensor, coefficients: Tensor, flat: FlatParameters) -> None:
    """Replace the gradients g by (I + U diag(c) U') g, in place.

    Args:
        basis: U' [K, N], eigenvectors as rows.
        coefficients: c [K].
        flat: the parameters whose gradients these are.

    Raises:
        NonFiniteGradientError: a gradient is not finite; they are as they were.
    """
    sizes = [p.numel() for p in flat.parameters]
    pieces = [
        (rows, p.grad.reshape(-1).to(basis.dtype), p.grad)
        for p, rows in zip(flat.parameters, basis.split(sizes, dim=1), strict=True)
        if p.grad is not None
    ]
    along = basis.new_zeros(len(basis))
    for rows, g, _ in pieces:
        along.addmv_(rows, g)
    require_finite(along)
    weights = coefficients.to(along.device, along.dtype) * along
    for rows, g, grad in pieces:
        g.addmv_(rows.mT, weights)
        if g.data_ptr() != grad.data_ptr():  # a copy: of another type, or not contiguous
            grad.copy_(g.view(grad.shape))


def _held(flat: FlatParameters) -> list[Tensor]:
    """Gradients that there are, without empty ones."""
    return [g.detach() for g in flat.gradients() if g is not None and g.numel()]


def gradient_norm(flat: FlatParameters) -> float:
    """Euclidean norm of all gradients."""
    grads = _held(flat)
    if not grads:
        return 0.0
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))


def require_finite(vector: Tensor) -> None:
    """Raise NonFiniteGradientError where a vector [N] holds inf or nan."""
    if len(vector) and not math.isfinite(torch.linalg.vector_norm(vector, math.inf)):
        raise NonFiniteGradientError


def gradients_finite(flat: FlatParameters) -> bool:
    """Whether the gradients are finite, judged by the small ones (biases), else by all.

    What is not finite in a backward pass mostly reaches the biases; looking at the rest costs a
    pass over the memory of every gradient, a few per cent of a step. Where a step reads them all
    anyway, it looks again.
    """
    grads = _held(flat)
    looked_at = [g for g in grads if g.numel() <= _SMALL] or grads
    if not looked_at:
        return True
    largest = torch._foreach_norm(looked_at, math.inf)
    return math.isfinite(torch.stack(largest).max().item())
