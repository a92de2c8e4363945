"""Gaussian inference on a Hessian from few noisy Hessian-vector products.

Model: B ~ N(b0 I, w0^2 I), independent entries; product y_i = B s_i + noise of variance
lambda0^2 |s_i|^2 per entry, one fresh batch a product. Everything depends on the directions through
unit vectors s_i / |s_i|, the products y_i / |s_i|, and the noise ratio rho^2 = (lambda0 / w0)^2.

Index legend: N parameters, M observations (rows), K eigenpairs. Small matrices are float64 and live
on the CPU; tensors with an N live where the parameters live.

Source: F. de Roos, P. Hennig 2019, Active Probabilistic Inference on Matrices for Pre-Conditioning
in Stochastic Optimization; computed here in scalar (ridge) form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from optiscope.linalg.eigenpairs import EigenPairs
from optiscope.linalg.low_rank import apply_low_rank, factorize_symmetric
from optiscope.optim.preconditioner.prior import Prior, safe_dot

__all__ = [
    "Observations",
    "best_scale",
    "curvature_with_noise",
    "extend",
    "log_evidence",
    "new_part",
    "next_direction",
    "observe",
    "observed_pairs",
    "posterior_mean_factor",
    "posterior_product",
    "posterior_solve",
    "preconditioned_rate",
    "predictive_statistic",
    "remaining_curvature",
    "symmetric_mean_factor",
    "variance_share",
    "whole_pairs",
]


_CONVERGED = 0.01  # new part of an eigenvector's product that is not worth an observation


@dataclass(frozen=True)
class Observations:
    """M unit directions, their products, and the two small matrices all formulas need.

    Attributes:
        directions: [M, N], rows s_i / |s_i|.
        products: [M, N], rows y_i / |s_i|.
        gram: C [M, M], inner products of directions.
        cross: [M, M], entry ij = direction i times product j.
    """

    directions: Tensor
    products: Tensor
    gram: Tensor
    cross: Tensor

    @staticmethod
    def none(like: Tensor) -> Observations:
        """No observation yet, of vectors such as ``like`` [N]."""
        empty = torch.zeros(0, 0, dtype=torch.float64, device="cpu")
        rows = like.new_empty(0, len(like))
        return Observations(rows, rows, empty, empty)

    def __len__(self) -> int:
        return len(self.gram)


def _small(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def observe(seen: Observations, s: Tensor, y: Tensor) -> Observations:
    """Observations with one more pair s, y [N], of any length |s| > 0."""
    norm = math.sqrt(safe_dot(s, s))
    if not (math.isfinite(norm) and norm > 0):
        raise ValueError(f"expected a direction of positive finite length, got {norm}")
    directions = torch.cat([seen.directions, (s / norm).unsqueeze(0)])
    products = torch.cat([seen.products, (y / norm).unsqueeze(0)])
    return extend(seen, directions, products)


def extend(seen: Observations, directions: Tensor, products: Tensor) -> Observations:
    """Observations of unit rows [M + 1, N], of which all but the last are those of ``seen``.

    For rows that are of unit length already.
    """
    m = len(seen)
    gram = torch.zeros(m + 1, m + 1, dtype=torch.float64, device="cpu")
    cross = torch.zeros_like(gram)
    gram[:m, :m], cross[:m, :m] = seen.gram, seen.cross
    gram[m] = gram[:, m] = _small(directions @ directions[m])
    cross[:, m] = _small(directions @ products[m])
    cross[m, :m] = _small(products[:m] @ directions[m])
    return Observations(directions, products, gram, cross)


def _weights(seen: Observations, ratio: float) -> Tensor:
    """(C + rho^2 I)^-1 [M, M], the pseudo-inverse where directions repeat without noise."""
    values, vectors = torch.linalg.eigh(seen.gram)
    shifted = values.clamp(min=0) + ratio
    lowest = 8 * len(seen) * torch.finfo(seen.directions.dtype).eps
    inverse = torch.where(shifted > lowest, 1 / shifted, torch.zeros_like(shifted))
    weights: Tensor = vectors @ (inverse.unsqueeze(1) * vectors.mT)
    return weights


def _rows(weights: Tensor, like: Tensor) -> Tensor:
    return weights.to(like.device, like.dtype)


def posterior_mean_factor(prior: Prior, seen: Observations) -> Tensor:
    """X [N, M] of the posterior mean b0 I + X S', with S [N, M] the unit directions."""
    weights = _rows(_weights(seen, prior.ratio), seen.directions)
    return (weights @ (seen.products - prior.base * seen.directions)).mT


def posterior_product(prior: Prior, seen: Observations, v: Tensor) -> Tensor:
    """Posterior mean of the Hessian times a vector v [N]."""
    along = seen.directions @ v
    return prior.base * v + posterior_mean_factor(prior, seen) @ along


def posterior_solve(prior: Prior, seen: Observations, g: Tensor) -> Tensor:
    """Inverse of the posterior mean times a vector g [N]; 4NM + O(M^3) flops.

    By the matrix inversion lemma a g - a^2 D (rho^2 I + a S'Y)^-1 S'g, with a = 1/b0 and
    D = Y - b0 S. Where the small matrix is singular, so is the mean; its pseudo-inverse is used.
    Non-finite products leave the prior's a g.
    """
    a = 1 / prior.base
    along = _small(seen.directions @ g)
    core = prior.ratio * torch.eye(len(seen), dtype=torch.float64, device="cpu") + a * seen.cross
    if len(seen) == 0 or not bool(core.isfinite().all() & along.isfinite().all()):
        return a * g
    weights = _rows(a * (torch.linalg.pinv(core, rtol=1e-7) @ along), g)  # a^2 may overflow
    return a * (g - seen.products.mT @ weights) + seen.directions.mT @ weights


def variance_share(prior: Prior, seen: Observations, v: Tensor) -> float:
    """q(v) in [0, 1]: share of the prior variance of Bv left for the unit vector along v [N]."""
    square = safe_dot(v, v)
    if len(seen) == 0 or not square > 0:
        return 1.0
    along = _small(seen.directions @ v) / math.sqrt(square)
    explained = float(along @ _weights(seen, prior.ratio) @ along)
    return min(max(1 - explained, 0.0), 1.0)


def new_part(seen: Observations, v: Tensor) -> Tensor | None:
    """Unit vector along the part of v [N] outside the observed directions, or None."""
    return _unit(*_outside(seen, v))


def _outside(seen: Observations, v: Tensor) -> tuple[Tensor, float]:
    """The part of v [N] outside the observed directions, and the length below which it is error."""
    eps, size = torch.finfo(v.dtype).eps, math.sqrt(safe_dot(v, v))
    inverse = torch.linalg.pinv(seen.gram, rtol=8 * len(seen) * eps, hermitian=True)
    for _ in range(2 if len(seen) else 0):  # once leaves rounding errors, twice is enough
        along = inverse @ _small(seen.directions @ v)
        v = v - seen.directions.mT @ _rows(along, v)
    return v, 100 * eps * size


def next_direction(prior: Prior, seen: Observations) -> tuple[Tensor | None, float]:
    """Unit vector [N] to observe next, and the share q of prior variance left for what asks for it.

    The part outside the observed directions of B u, with B the posterior mean and u its leading
    eigenvector among them: the product of u that is not yet accounted for. From one vector and
    without noise that is Lanczos's next vector, and all span a Krylov space, as the paper's
    -B^-1 g do; with noise it does not carry a fresh gradient's. Where the new part is less than a
    hundredth of B u, that of the next eigenvector; None where none has any.
    """
    combine = _eigenvectors(prior, seen)[1]
    weights = _weights(seen, prior.ratio) @ (seen.gram @ combine)
    chosen: tuple[Tensor, Tensor] | None = None
    for product, direction in zip(weights.mT, (prior.base * (combine - weights)).mT, strict=True):
        image = seen.products.mT @ _rows(product, seen.products)
        image += seen.directions.mT @ _rows(direction, image)
        part, least = _outside(seen, image)
        found = _unit(part, least)
        if found is None:
            continue
        converged = bool(part.norm() < _CONVERGED * image.norm())
        if chosen is None or not converged:
            chosen = found, image
        if not converged:
            break
    return (None, 0.0) if chosen is None else (chosen[0], variance_share(prior, seen, chosen[1]))


def _unit(v: Tensor, least: float) -> Tensor | None:
    length = math.sqrt(safe_dot(v, v))
    return v / length if math.isfinite(length) and length > least else None


def _residual_gram(prior: Prior, seen: Observations) -> Tensor:
    """D'D [M, M] of the residuals D = Y - b0 S."""
    residuals = seen.products - prior.base * seen.directions
    return _small(residuals @ residuals.mT)


def log_evidence(prior: Prior, seen: Observations) -> float:
    """Logarithm of the density of the unit products given the unit directions; M x M work."""
    n, m = seen.directions.shape[1], len(seen)
    cover = prior.scale**2 * seen.gram + prior.noise**2 * torch.eye(
        m, dtype=torch.float64, device="cpu"
    )
    fit = torch.linalg.solve(cover, _residual_gram(prior, seen)).trace()
    sign, logdet = torch.linalg.slogdet(2 * math.pi * cover)
    return float(-0.5 * fit - 0.5 * n * logdet) if sign > 0 else -math.inf


def best_scale(prior: Prior, seen: Observations) -> float:
    """w0 that maximises the evidence at the prior's noise ratio."""
    n, m = seen.directions.shape[1], len(seen)
    square = (_weights(seen, prior.ratio) @ _residual_gram(prior, seen)).trace() / (n * m)
    return math.sqrt(max(float(square), 0.0))


def predictive_statistic(prior: Prior, seen: Observations, s: Tensor, y: Tensor) -> float:
    """Squared prediction error of a fresh pair s, y [N] in units of its variance.

    Chi-squared with N degrees of freedom under the model.
    """
    square = safe_dot(s, s)
    error = y - posterior_product(prior, seen, s)
    variance = square * (prior.scale**2 * variance_share(prior, seen, s) + prior.noise**2)
    return safe_dot(error, error) / variance


def symmetric_mean_factor(prior: Prior, seen: Observations) -> tuple[Tensor, Tensor]:
    """L, Q [N, M] of the mean b0 I + (LQ' + QL')/2 given that the Hessian is symmetric.

    Exact for orthonormal directions; others are orthonormalised first, and the noise ratio is
    taken to be the same for each combination.
    """
    whiten = _whitening(seen)
    basis = seen.directions.mT @ _rows(whiten, seen.directions)
    residuals = (seen.products - prior.base * seen.directions).mT @ _rows(whiten, seen.directions)
    inner = whiten.mT @ (seen.cross - prior.base * seen.gram) @ whiten
    inside = (inner + inner.mT) / (2 * (1 + prior.ratio)) - 2 * inner / (1 + 2 * prior.ratio)
    left = basis @ _rows(inside, basis) + residuals * (2 / (1 + 2 * prior.ratio))
    return left, basis


def whole_pairs(prior: Prior, seen: Observations, rank: int, symmetric: bool = True) -> EigenPairs:
    """The ``rank`` eigenpairs of largest magnitude of a symmetric form of the posterior mean.

    Outside the observed directions it holds b0, so that pairs at b0 may be among those returned.

    Args:
        prior: beliefs before the observations.
        seen: at least one observation.
        rank: pairs wanted; fewer come back where the observations span fewer.
        symmetric: the mean given that the Hessian is symmetric; else the symmetric part of the
            paper's mean.
    """
    if symmetric:
        left, right = symmetric_mean_factor(prior, seen)
    else:
        left, right = posterior_mean_factor(prior, seen), seen.directions.mT
    pairs = factorize_symmetric(left, right, prior.base)
    order = pairs.values.abs().argsort(descending=True, stable=True)[:rank]
    return EigenPairs(pairs.basis[:, order], pairs.values[order], pairs.residuals[order])


def _whitening(seen: Observations) -> Tensor:
    """W [M, R] for which the rows of W'S are orthonormal and span all observed directions."""
    values, vectors = torch.linalg.eigh(seen.gram)
    lowest = 8 * len(seen) * torch.finfo(seen.directions.dtype).eps
    held = values > lowest
    whiten: Tensor = vectors[:, held] * values[held].rsqrt()
    return whiten


def _eigenvectors(prior: Prior, seen: Observations) -> tuple[Tensor, Tensor]:
    """Eigenvalues [R] of the posterior mean within its directions, and coefficients [M, R] of S."""
    whiten = _whitening(seen)
    inner = whiten.mT @ (seen.cross - prior.base * seen.gram) @ whiten
    inner = (inner + inner.mT) / (2 * (1 + prior.ratio))
    finite = bool(inner.isfinite().all())
    distances, vectors = torch.linalg.eigh(inner if finite else torch.zeros_like(inner))
    values = distances + prior.base if finite else torch.full_like(distances, torch.nan)
    order = values.abs().argsort(descending=True, stable=True)
    return values[order], whiten @ vectors[:, order]


def observed_pairs(prior: Prior, seen: Observations, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``rank`` eigenpairs of largest magnitude of the posterior mean within its directions.

    Without noise the values never leave the range of the Hessian's own (Rayleigh-Ritz).

    Returns:
        values [K] (float64, CPU), eigenvectors as rows [K, N], and standard deviations [K] of
        u'Bu under the posterior; fewer than ``rank`` where the observations span fewer.
    """
    values, combine = (found[..., :rank] for found in _eigenvectors(prior, seen))
    rows = _rows(combine.mT, seen.directions) @ seen.directions
    along = seen.gram @ combine
    shares = 1 - (along * (_weights(seen, prior.ratio) @ along)).sum(dim=0)
    return values, rows, prior.scale * shares.clamp(min=0).sqrt()


def preconditioned_rate(
    seen: Observations, basis: Tensor, coefficients: Tensor, limit: float
) -> float | None:
    """Constructed rate sum s'y / sum y'P^2 y of the preconditioned problem, at most ``limit``.

    Args:
        seen: observed pairs; the sums run over them.
        basis: U' [K, N] of P^2 = I + U diag(c) U'.
        coefficients: c [K].
        limit: inverse of the largest curvature known to remain.
    """
    along = _small(seen.products @ basis.mT)
    squares = _small(torch.linalg.vector_norm(seen.products, dim=1)).square()
    numerator = float(seen.cross.diagonal().sum())
    denominator = float(squares.sum() + (along.square() * _small(coefficients)).sum())
    if not (numerator > 0 and denominator > 0 and math.isfinite(numerator / denominator)):
        return None
    return min(numerator / denominator, limit)


def _inner(basis: Tensor, coefficients: Tensor, x: Tensor, y: Tensor) -> float:
    """x'(I + U diag(c) U')y of vectors [N], without another vector."""
    along = _small(basis.mT @ x)
    beside = along if y is x else _small(basis.mT @ y)
    return safe_dot(x, y) + float((_small(coefficients) * along * beside).sum())


def remaining_curvature(
    basis: Tensor, coefficients: Tensor, v: Tensor, product: Tensor
) -> tuple[float, Tensor]:
    """One power iteration on the preconditioned Hessian P H P, from v [N] and its product Hv.

    Returns its gain, a lower bound of the largest eigenvalue that repetition raises to it, and the
    next vector P^2 H v, of unit length; (0, v) where there is no curvature.

    Args:
        basis: U [N, K] of P^2 = I + U diag(c) U'.
        coefficients: c [K], above -1.
        v: vector [N] in the parameters' coordinates.
        product: Hv [N].
    """
    image = apply_low_rank(basis, coefficients, product)
    before = _inner(basis, -coefficients / (1 + coefficients), v, v)
    after = safe_dot(product, image)
    length = math.sqrt(max(safe_dot(image, image), 0.0))
    if not (before > 0 and after > 0 and math.isfinite(after / before) and length > 0):
        return 0.0, v
    return math.sqrt(after / before), image / length


def curvature_with_noise(
    basis: Tensor, coefficients: Tensor, v: Tensor, first: Tensor, second: Tensor, momentum: float
) -> float:
    """Curvature of P H P along v [N] that bounds the rate of SGD when the Hessian is noisy.

    With products y1, y2 of v on two batches, (y1'P^2 y2 + n / (1 - momentum)) / v'Hv, where
    n = |P(y1 - y2)|^2 / 2 is the noise of one product. Without noise and momentum the mean of
    squared curvatures over the mean curvature; 0 where that is not positive.

    Args:
        basis: U [N, K] of P^2 = I + U diag(c) U'.
        coefficients: c [K].
        v: vector [N].
        first: product on one batch [N].
        second: product on another [N].
        momentum: of the inner optimizer, which adds up noise over 1 / (1 - momentum) steps.
    """
    along = (safe_dot(v, first) + safe_dot(v, second)) / 2
    gap = first - second
    signal = _inner(basis, coefficients, first, second)
    noise = _inner(basis, coefficients, gap, gap) / 2
    bound = (max(signal, 0.0) + noise / (1 - momentum)) / along if along > 0 else 0.0
    return bound if math.isfinite(bound) else 0.0
