"""Low-rank parts of symmetric matrices: found from products, factorised exactly, applied thinly.

Pure functions on tensors. No input makes them raise: rank-deficient, zero and badly scaled input
gives an orthonormal basis and finite values, non-finite input gives non-finite values.

Index legend: N rows (parameters, or one side of a layer), K kept pairs, M columns of a factor,
Q vectors acted on. Leading dimensions, where allowed, are batches of matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "EigenPairs",
    "apply_low_rank",
    "block_power_iteration",
    "factorize_symmetric",
    "orthonormalize",
    "rayleigh_ritz",
    "relative_power",
    "shrink_values",
    "symmetric_eigen",
    "tall_qr",
]

_NEAR_ORTHONORMAL = 0.1  # one Cholesky pass succeeded if its Gram matrix is this close to I


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


def factorize_symmetric(left: Tensor, right: Tensor, base: float | Tensor = 0.0) -> EigenPairs:
    """Exact eigenpairs of base I + (X S' + S X') / 2, but for the eigenvalue base itself.

    Args:
        left: X [N, M].
        right: S [N, M].
        base: multiple of the identity, a number or a scalar tensor.

    Returns:
        min(2M, N) pairs, by descending distance from ``base``; every direction orthogonal to them
        has the eigenvalue ``base``. QR of [X S] and one 2M x 2M eigen-decomposition: O(N M^2).
    """
    n, m = left.shape
    if n < 2 * m:  # a factor cannot have more orthonormal columns than rows
        q = torch.eye(n, dtype=left.dtype, device=left.device)
        core = left.to(torch.float64) @ right.to(torch.float64).mT
    else:
        x_scale, s_scale = _largest(left), _largest(right)
        q, r = tall_qr(torch.cat([left / x_scale, right / s_scale], dim=1))
        wide = r.to(torch.float64)
        core = wide[:, :m] @ wide[:, m:].mT * x_scale.to(torch.float64) * s_scale.to(torch.float64)
    distances, vectors = symmetric_eigen(core)
    values = (distances + base).to(left.dtype)
    return EigenPairs(q @ vectors.to(left.dtype), values, torch.zeros_like(values))


def _largest(block: Tensor) -> Tensor:
    largest = block.abs().amax()
    return torch.where(largest > 0, largest, torch.ones_like(largest))


def relative_power(
    values: Tensor, reference: float | Tensor, power: float, floor: float | Tensor | None = None
) -> Tensor:
    """Coefficients c [..., K] for which I + U diag(c) U' is (A / reference)^power.

    The rest of A's spectrum counts as ``reference``. Magnitudes |value| are used and raised to
    ``floor`` (default: the reference), so that no sign flips, and a negative power never lengthens
    a step by more than (reference / floor)^|power|. A reference that is not positive gives zeros.
    """
    wide = values.to(torch.float64)
    base = torch.as_tensor(reference, dtype=torch.float64, device=values.device)
    lowest = base if floor is None else torch.as_tensor(floor, dtype=base.dtype, device=base.device)
    usable = (base > 0) & (lowest > 0)
    ratio = torch.maximum(wide.abs(), lowest) / base
    ratio = torch.where(usable, ratio, torch.ones_like(ratio))
    return (ratio.pow(power) - 1).to(values.dtype)


def shrink_values(values: Tensor, base: float | Tensor, variance: float | Tensor) -> Tensor:
    """Eigenvalues [..., K] drawn towards ``base`` by as much as their variance leaves in doubt.

    Positive-part empirical Bayes: base + (value - base) max(0, 1 - variance / (value - base)^2).
    A value within one standard deviation of the base becomes the base.
    """
    gap = values.to(torch.float64) - base
    doubt = torch.as_tensor(variance, device=values.device).to(torch.float64) / gap.square()
    kept = torch.where(gap == 0, torch.zeros_like(gap), (1 - doubt).clamp(min=0))
    return (base + gap * kept).to(values.dtype)


def apply_low_rank(basis: Tensor, coefficients: Tensor, vectors: Tensor) -> Tensor:
    """(I + U diag(c) U') V as two thin products: 4 N K flops a vector.

    Args:
        basis: U [..., N, K].
        coefficients: c [..., K].
        vectors: V [N] or [..., N, Q].
    """
    if vectors.ndim == 1:
        return torch.addmv(vectors, basis, coefficients * (basis.mT @ vectors))
    return vectors + basis @ (coefficients.unsqueeze(-1) * (basis.mT @ vectors))
