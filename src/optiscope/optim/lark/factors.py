"""Low-rank Kronecker factors of a layer's gradients: gathered, renewed, applied.

A layer's gradient G [M, N] has two second moments, L = E[G G'] and R = E[G' G]. Of each only K
leading eigenpairs and the mean of the remaining eigenvalues are kept. Pure functions on tensors;
none waits for the host after a factor's first gradient, so that they can be queued on a GPU.

Index legend: M rows and N columns of a layer's matrix, D one of the two (the side a factor belongs
to), K kept pairs. ``...`` are layers of equal shape, treated at once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from optiscope.linalg.eigenpairs import symmetric_eigen
from optiscope.linalg.low_rank import relative_power
from optiscope.linalg.orthonormal import orthonormalize

__all__ = [
    "Block",
    "FactorPowers",
    "ThinParts",
    "asking_is_free",
    "first_block",
    "gains",
    "gather",
    "inner",
    "inner_product",
    "iterate_core",
    "precondition_",
    "renew",
    "thin_parts",
]

_SHIFT = 1e-9  # relative to the trace, and at least 16 machine epsilons: see `renew`
_GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples, modulo 1, have no pattern
_ROUNDS = 8  # rounds of orthogonal iteration on a K x K core where there is no waiting
FLOOR = 1e-6  # smallest eigenvalue counted, relative to the largest


class Block(NamedTuple):
    """What is known of one side's second moment A [D, D].

    Attributes:
        basis: U [..., D, K], orthonormal.
        image: A U [..., D, K], the running average of gradient Gram products.
    """

    basis: Tensor
    image: Tensor


class FactorPowers(NamedTuple):
    """Powers f(L) and f(R) of a layer's two factors, f(A) = I + U diag(c) U'.

    Attributes:
        left: U of L [..., M, K].
        left_gains: c of L [..., K].
        right: V of R [..., N, K].
        right_gains: c of R [..., K].
    """

    left: Tensor
    left_gains: Tensor
    right: Tensor
    right_gains: Tensor


class ThinParts(NamedTuple):
    """U'X [..., K, N], X V [..., M, K] and U'X V [..., K, K] of a matrix X [..., M, N]."""

    rows: Tensor
    columns: Tensor
    core: Tensor


def first_block(gradient: Tensor, rank: int) -> Block:
    """Block for A = G G' of a first gradient G [..., D, N], its image still zero.

    The basis is the range of G G' times a fixed random block, the same in every process; the whole
    space where ``rank`` reaches D.
    """
    d = gradient.shape[-2]
    if rank >= d:
        basis = torch.eye(d, dtype=gradient.dtype, device=gradient.device)
        basis = basis.expand(*gradient.shape[:-2], d, d).clone()
    else:
        generator = torch.Generator("cpu").manual_seed(d * 1_000_003 + rank)
        probe = torch.randn(d, rank, generator=generator, dtype=torch.float64, device="cpu")
        probe = probe.to(gradient)
        size = torch.linalg.matrix_norm(gradient, keepdim=True)
        unit = gradient / torch.where(size > 0, size, torch.ones_like(size))
        # The probe itself, small, completes the basis where the gradient has fewer directions.
        basis = orthonormalize(unit @ (unit.mT @ probe) + 1e-3 * probe)
    return Block(basis, torch.zeros_like(basis))


def gather(image: Tensor, gradient: Tensor, thin: Tensor, weight: float | Tensor) -> Tensor:
    """Image (1 - weight) A U + weight G G'U after a gradient G [..., D, N]; ``thin`` is G'U."""
    return torch.lerp(image, gradient @ thin, weight)


def renew(block: Block) -> tuple[Block, Tensor]:
    """Eigenpairs of what the block knows of A, as a block, and the eigenvalues [..., K] descending.

    The Nystrom approximation A U (U'A U)^-1 (A U)' is the largest positive matrix below A that
    reproduces A U: one step of block power iteration, without another product. Where K = D it is A
    itself. A small multiple of the identity, taken off again, keeps it defined for singular A.

    Source: Tropp et al. 2017, Fixed-rank approximation of a positive-semidefinite matrix.
    """
    basis, image = block
    if basis.shape[-1] == basis.shape[-2]:
        values, vectors = _eigen(basis.mT @ image)
        kept = values.clamp(min=0)
        rotated = basis @ vectors
        return Block(rotated, rotated * kept.unsqueeze(-2)), kept
    core = (basis.mT @ image).to(torch.float64)
    core = (core + core.mT) / 2
    trace = core.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
    positive = trace > 0
    trace = torch.where(positive, trace, torch.ones_like(trace))
    shift = max(_SHIFT, 16 * torch.finfo(basis.dtype).eps)
    eye = torch.eye(core.shape[-1], dtype=core.dtype, device=core.device)
    root, _ = torch.linalg.cholesky_ex(core / trace + shift * eye)
    inverse_root = torch.linalg.solve_triangular(root, eye, upper=False).to(basis.dtype)
    half = (image / trace.to(basis.dtype) + shift * basis) @ inverse_root.mT  # A ~ half half'
    values, vectors = _eigen(half.mT @ half)
    safe = values.clamp(min=shift).rsqrt()
    pairs = _straighten(half @ (vectors * safe.unsqueeze(-2)))
    # Of a zero matrix the shift's own rounding would be left, other on every processor.
    size = torch.where(positive, trace, torch.zeros_like(trace))
    kept = (values - shift).clamp(min=0) * size[..., 0].to(values.dtype)
    return Block(pairs, pairs * kept.unsqueeze(-2)), kept


def _straighten(block: Tensor) -> Tensor:
    """Orthonormal columns from nearly orthonormal ones, by one Cholesky pass in float64."""
    gram = (block.mT @ block).to(torch.float64)
    root, _ = torch.linalg.cholesky_ex(gram)
    straight: Tensor = torch.linalg.solve_triangular(
        root.mT.to(block.dtype), block, upper=True, left=False
    )
    return straight


def asking_is_free(device: torch.device) -> bool:
    """Whether looking at a tensor's value does not make a queue of work wait."""
    return device.type == "cpu"


def _eigen(core: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors of positive matrices [..., K, K], descending.

    On a CPU by LAPACK. Elsewhere that would wait for the host, so there by orthogonal iteration,
    which is as good because a renewed basis leaves the core nearly diagonal.
    """
    if asking_is_free(core.device):
        values, vectors = symmetric_eigen(core)
        return values.to(core.dtype), vectors.to(core.dtype)
    return iterate_core(core)


def iterate_core(core: Tensor, rounds: int = _ROUNDS) -> tuple[Tensor, Tensor]:
    """Approximate eigenvalues and vectors of [..., K, K] by orthogonal iteration; never waits."""
    wide = core.to(torch.float64)
    wide = (wide + wide.mT) / 2
    eye = torch.eye(wide.shape[-1], dtype=wide.dtype, device=wide.device)
    trace = wide.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
    scaled = wide / torch.where(trace > 0, trace, torch.ones_like(trace)) + FLOOR * eye
    order = scaled.diagonal(dim1=-2, dim2=-1).argsort(dim=-1, descending=True, stable=True)
    vectors = eye.expand_as(scaled).gather(-1, order.unsqueeze(-2).expand_as(scaled))
    for _ in range(rounds):
        block = scaled @ vectors
        block = block / torch.linalg.vector_norm(block, dim=-2, keepdim=True)
        vectors = _straighten(_straighten(block))
    values = (vectors * (wide @ vectors)).sum(dim=-2)
    return values.to(core.dtype), vectors.to(core.dtype)


def gains(values: Tensor, trace: Tensor, size: int, power: float) -> tuple[Tensor, Tensor]:
    """Coefficients c [..., K] of f(A) = (A / rest)^-power, and the mean of the rest [...].

    Args:
        values: K leading eigenvalues of A [..., K], descending.
        trace: trace of A [...].
        size: D; the D - K remaining eigenvalues count as their mean, and no kept one as less.
        power: of the inverse.

    Where K = D nothing remains: values count relative to their own mean, down to ``FLOOR`` times
    the largest.
    """
    k = values.shape[-1]
    lowest = FLOOR * values[..., 0]
    if k == size:
        rest = values.mean(dim=-1)
        floor = lowest
    else:
        rest = torch.maximum((trace - values.sum(dim=-1)) / (size - k), lowest)
        floor = rest
    coefficients = relative_power(values, rest.unsqueeze(-1), -power, floor.unsqueeze(-1))
    return coefficients, rest


def precondition_(matrix: Tensor, by: FactorPowers) -> Tensor:
    """f(L) X f(R) for X [..., M, N], in place: 8 M N K flops in three passes over the matrix.

    Rows and columns of zeros stay zeros: no gradient ever had an entry there (padding, masks, dead
    inputs), so that f(L) and f(R) are the identity on them, but for the directions with which a
    basis was completed.
    """
    left, c, right, e = by
    rows = left.mT @ matrix  # [..., K, N]
    columns = matrix @ right  # [..., M, K]
    still_rows, still_columns = _still(matrix, columns, -1), _still(matrix, rows, -2)
    core = (left.mT @ columns) * e.unsqueeze(-2)
    rows = c.unsqueeze(-1) * (rows + core @ right.mT)
    tall = torch.cat([left, columns * e.unsqueeze(-2)], dim=-1)
    wide = torch.cat([rows, right.mT], dim=-2)
    if still_rows is not None:
        tall.masked_fill_(still_rows.unsqueeze(-1), 0.0)
    if still_columns is not None:
        wide.masked_fill_(still_columns.unsqueeze(-2), 0.0)
    return matrix.addmm_(tall, wide) if matrix.ndim == 2 else matrix.baddbmm_(tall, wide)


def _still(matrix: Tensor, thin: Tensor, dim: int) -> Tensor | None:
    """Which rows (``dim`` -1) or columns (-2) of X [..., M, N] are zeros; None: none is.

    They are zero in the thin product with a basis too, so that on a CPU X itself is looked at only
    where that is. Then its product with one more vector tells: that of a line with entries is zero
    by a coincidence of rounding alone, and such a line is left as it is for one step.

    Args:
        matrix: X.
        thin: X V [..., M, K] for rows, U'X [..., K, N] for columns.
        dim: over which a line runs.
    """
    silent = ~thin.any(dim=dim)
    if asking_is_free(matrix.device) and not bool(silent.any()):
        return None
    steps = torch.arange(1, matrix.shape[dim] + 1, dtype=torch.float64, device=matrix.device)
    probe = (1 + (steps * _GOLDEN) % 1).to(matrix.dtype)
    return silent & ((matrix @ probe if dim == -1 else probe @ matrix) == 0)


def inner(x: Tensor, y: Tensor) -> Tensor:
    """<X, Y> [...] of matrices [..., M, N], without a temporary of their size."""
    if x.ndim == 2:
        return torch.dot(x.flatten(), y.flatten())
    flat = x.flatten(-2).unsqueeze(-2) @ y.flatten(-2).unsqueeze(-1)
    return flat.squeeze(-1).squeeze(-1)


def thin_parts(matrix: Tensor, by: FactorPowers) -> ThinParts:
    """The parts of X [..., M, N] in the kept directions: two thin products."""
    rows = by.left.mT @ matrix
    columns = matrix @ by.right
    return ThinParts(rows, columns, by.left.mT @ columns)


def inner_product(whole: Tensor, x: ThinParts, y: ThinParts, by: FactorPowers) -> Tensor:
    """<X, f(L) Y f(R)> [...] from <X, Y> [...] and thin parts, without another large product."""
    c, e = by.left_gains, by.right_gains
    both = c.unsqueeze(-1) * e.unsqueeze(-2) * x.core * y.core
    return (
        whole
        + (c * (x.rows * y.rows).sum(dim=-1)).sum(dim=-1)
        + (e * (x.columns * y.columns).sum(dim=-2)).sum(dim=-1)
        + both.sum(dim=(-2, -1))
    )
