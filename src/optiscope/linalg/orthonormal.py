"""Orthonormal bases of tall blocks of columns.

Pure functions on tensors. Rank-deficient, zero and badly scaled input gives an orthonormal basis;
non-finite input gives non-finite values.

Index legend: N rows, M columns. Leading dimensions are batches of matrices.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["orthonormalize", "tall_qr", "vector_length"]

_NEAR_ORTHONORMAL = 0.1  # one Cholesky pass succeeded if its Gram matrix is this close to I


def tall_qr(block: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal Q [..., N, M] and R [..., M, M] with QR = block, for N >= M.

    Two Cholesky passes (three thin products, much faster than reflections on a tall block); where
    the columns are too close to dependent for that, Householder reflections, which complete the
    basis by arbitrary orthonormal columns. R is triangular in both cases.

    Source: Yamamoto et al. 2015, Roundoff error analysis of the CholeskyQR2 algorithm.
    """
    if block.shape[-2] < block.shape[-1]:
        raise ValueError(
            f"expected at least as many rows as columns, got {tuple(block.shape)}: keep fewer pairs"
        )
    # Columns are scaled by their largest entry first, so that squares cannot leave float32's range.
    scale = block.abs().amax(dim=-2, keepdim=True)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    scaled = block / scale
    first, first_root = _cholesky_pass(scaled)
    second, second_root = _cholesky_pass(first)
    gap = (second_root - torch.eye(block.shape[-1], dtype=block.dtype, device=block.device)).abs()
    if bool((gap < _NEAR_ORTHONORMAL).all()):
        return second, (second_root @ first_root) * scale
    q, r = torch.linalg.qr(scaled)
    return q, r * scale


def _cholesky_pass(block: Tensor) -> tuple[Tensor, Tensor]:
    gram = block.mT @ block
    size = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    factor, info = torch.linalg.cholesky_ex(gram / (size.unsqueeze(-1) * size.unsqueeze(-2)))
    root = factor.mT * size.unsqueeze(-2)
    # A failed factorisation must fail the caller's check, whatever its unspecified entries hold.
    root = torch.where((info == 0)[..., None, None], root, torch.full_like(root, torch.nan))
    return torch.linalg.solve_triangular(root, block, upper=True, left=False), root


def orthonormalize(block: Tensor) -> Tensor:
    """Orthonormal columns [..., N, M] that span the columns of ``block`` [..., N, M].

    Dependent columns are replaced by arbitrary orthonormal ones.
    """
    return tall_qr(block)[0]


def vector_length(vector: Tensor) -> float:
    """Euclidean length of ``vector`` [N], also where its square leaves the range of its type."""
    length = float(torch.linalg.vector_norm(vector))
    smallest = 1e3 * math.sqrt(torch.finfo(vector.dtype).tiny)
    if smallest < length < math.inf or not vector.numel():
        return length
    largest = float(vector.abs().max())
    if not 0 < largest < math.inf:
        return length
    return largest * float(torch.linalg.vector_norm(vector / largest))
