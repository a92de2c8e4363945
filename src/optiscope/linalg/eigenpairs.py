"""Eigenpairs of symmetric matrices: of small ones directly, of large ones by power iteration.

Pure functions on tensors. Non-finite input gives non-finite values.

Index legend: N rows, K kept pairs, M rows of a small matrix. Leading dimensions are batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from optiscope.linalg.orthonormal import orthonormalize

__all__ = ["EigenPairs", "block_power_iteration", "rayleigh_ritz", "symmetric_eigen"]


@dataclass(frozen=True)
class EigenPairs:
    """Approximate eigenpairs of a symmetric matrix, by descending magnitude.

    Attributes:
        basis: [..., N, K], orthonormal columns.
        values: [..., K], Ritz values.
        residuals: [..., K], norms of A u - value u; zero where the pairs are exact by construction.
    """

    basis: Tensor
    values: Tensor
    residuals: Tensor


def symmetric_eigen(core: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors of small matrices [..., M, M], by descending magnitude, in float64.

    Non-finite matrices, on which LAPACK raises, get NaN values and the identity's vectors.
    """
    wide = core.to(torch.float64)
    wide = (wide + wide.mT) / 2
    finite = wide.isfinite().all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)
    values, vectors = torch.linalg.eigh(torch.where(finite, wide, torch.zeros_like(wide)))
    values = torch.where(finite.squeeze(-1), values, torch.full_like(values, torch.nan))
    order = values.abs().argsort(dim=-1, descending=True, stable=True)
    vectors = vectors.gather(-1, order.unsqueeze(-2).expand_as(vectors))
    return values.gather(-1, order), vectors


def rayleigh_ritz(basis: Tensor, image: Tensor) -> EigenPairs:
    """Best eigenpairs of a symmetric A within an orthonormal basis [..., N, K]; image = A basis."""
    values, vectors = symmetric_eigen(basis.mT @ image)
    values, vectors = values.to(basis.dtype), vectors.to(basis.dtype)
    rotated = basis @ vectors
    gap = image @ vectors - rotated * values.unsqueeze(-2)
    return EigenPairs(rotated, values, torch.linalg.vector_norm(gap, dim=-2))


def block_power_iteration(
    product: Callable[[Tensor], Tensor], start: Tensor, iterations: int = 1
) -> EigenPairs:
    """Leading eigenpairs of a symmetric matrix after block power iterations.

    Args:
        product: maps [..., N, K] to A times it.
        start: [..., N, K], any block, such as the previous basis.
        iterations: multiplications by A, the last of which also gives values and residuals.

    The vectors returned span the block *before* the last product, for which values and residuals
    hold; to continue, pass ``product``'s next block by calling again with ``pairs.basis``.
    """
    if iterations < 1:
        raise ValueError(f"expected iterations >= 1, got {iterations}")
    basis = orthonormalize(start)
    image = product(basis)
    for _ in range(iterations - 1):
        basis = orthonormalize(image)
        image = product(basis)
    return rayleigh_ritz(basis, image)
