"""Symmetric matrices of low rank: factorized exactly, raised to a power, applied thinly.

Pure functions on tensors. Rank-deficient, zero and badly scaled input gives finite values;
non-finite input gives non-finite values.

Index legend: N rows (parameters, or one side of a layer), K kept pairs, M columns of a factor,
Q vectors acted on. Leading dimensions, where allowed, are batches of matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optiscope.linalg.eigenpairs import EigenPairs, symmetric_eigen
from optiscope.linalg.orthonormal import tall_qr

__all__ = ["apply_low_rank", "factorize_symmetric", "relative_power", "shrink_values"]


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
