"""The trace of a symmetric matrix known by its products, with its two errors.

Index legend: N rows, P probes, G groups of samples, k deflated pairs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from optiscope.curvature.eigenpairs import Eigenpairs
from optiscope.curvature.linear_map import as_linear_map, cost_of, groups_of
from optiscope.errors import OptiscopeError
from optiscope.objective.cost import Cost

__all__ = ["Estimate", "TraceError", "cross_probe_error", "estimate_of", "rademacher", "trace"]


class TraceError(OptiscopeError, ValueError):
    """What was asked of the trace cannot be done."""


@dataclass(frozen=True)
class Estimate:
    """A number with its errors.

    Attributes:
        value: the estimate.
        standard_error: from random probes; 0 where the value is exact.
        interval: 95 % t-interval for the value at these data, from the probes alone.
        data_error: standard error from the spread over groups of samples, at these weights; None
            where there are no groups.
        exact: whether no probe is random.
        cost: what it took.
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    data_error: float | None
    exact: bool
    cost: Cost

    def __float__(self) -> float:
        return self.value


def trace(
    operator: Any,
    *,
    probes: int = 10,
    deflate: Eigenpairs | None = None,
    seed: int = 0,
    size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Estimate:
    """Trace by Hutchinson's estimator: the mean of z'Az over random signs z.

    With eigenpairs to ``deflate``, their values are summed exactly and only the rest is estimated,
    which makes the error several times smaller where a few eigenvalues stand out. With at least N
    probes the trace is exact.

    Args:
        operator: as for `top_eigenpairs`.
        probes: products; at least 2.
        deflate: eigenpairs of the same operator, with vectors.
        seed: of the probes; no global generator is used.
        size: rows of a function.
        progress: told the probes done and all of them.

    Raises:
        TraceError: fewer than two probes, pairs without vectors, or products that are not finite.
    """
    started = time.perf_counter()
    matrix = as_linear_map(operator, size)
    if not isinstance(probes, int) or probes < 2:
        raise TraceError(f"expected at least two probes, got {probes!r}: one has no error")
    basis = deflated_basis(deflate, matrix.size)
    exact = probes >= matrix.size
    count = matrix.size if exact else probes
    generator = torch.Generator().manual_seed(seed)
    multiply = groups_of(matrix)
    builds = float(getattr(matrix, "builds", 0.0))
    parts, shares = [], []
    for i in range(count):
        if exact:
            z = torch.zeros(matrix.size, dtype=matrix.dtype, device=matrix.device)
            z[i] = 1.0
        else:
            z = rademacher(matrix.size, generator).to(matrix.device, matrix.dtype)
            z = outside(basis, z)
        grouped = [(share, float((z @ product).double())) for share, product in multiply(z)]
        shares = [share for share, _ in grouped]
        parts.append([part for _, part in grouped])
        if progress is not None:
            progress(i + 1, count)
    cost = cost_of(matrix, count, builds, time.perf_counter() - started)
    values = torch.tensor(parts, dtype=torch.float64)  # [P, G]
    if not bool(values.isfinite().all()):
        raise TraceError("expected finite products, got one that is not: has training diverged?")
    weights = torch.tensor(shares, dtype=torch.float64)
    if exact:
        total = values.sum(0)
        error = None
        if len(shares) > 1:
            error = float(
                _spread(weights, (total - (weights * total).sum()).unsqueeze(1)).clamp_min(0).sqrt()
            )
        return _exact(float((weights * total).sum()), error, cost)
    offset = 0.0 if deflate is None else float(deflate.values.double().sum())
    error = None
    if len(shares) > 1:
        error = float(cross_probe_error(values.unsqueeze(2), weights))
    return estimate_of((values * weights).sum(1), cost, offset=offset, data_error=error)


def _exact(value: float, data_error: float | None, cost: Cost) -> Estimate:
    return Estimate(value, 0.0, (value, value), data_error, True, cost)


def estimate_of(
    samples: Tensor, cost: Cost, *, offset: float = 0.0, data_error: float | None = None
) -> Estimate:
    """The mean of independent ``samples`` [P] plus ``offset``, with a 95 % t-interval."""
    count = len(samples)
    value = float(samples.mean()) + offset
    error = float(samples.std()) / math.sqrt(count)
    reach = float(stats.t.ppf(0.975, count - 1)) * error
    return Estimate(value, error, (value - reach, value + reach), data_error, False, cost)


def rademacher(size: int, generator: torch.Generator) -> Tensor:
    """Random signs [N] in float64 on the CPU."""
    return torch.randint(0, 2, (size,), generator=generator).double() * 2 - 1


def deflated_basis(pairs: Eigenpairs | None, size: int) -> Tensor | None:
    """Orthonormal rows [k, N] that probes are kept out of.

    Raises:
        TraceError: the pairs have no vectors, or are of another matrix.
    """
    if pairs is None:
        return None
    if pairs.vectors is None:
        raise TraceError("expected eigenpairs with vectors: pass keep_vectors=True")
    if pairs.vectors.shape[1] != size:
        raise TraceError(
            f"expected eigenpairs of this matrix with {size} rows, got {pairs.vectors.shape[1]}"
        )
    return pairs.vectors


def outside(basis: Tensor | None, v: Tensor) -> Tensor:
    """The part of ``v`` [N] outside the rows of ``basis`` [k, N]."""
    return v if basis is None else v - basis.T @ (basis @ v)


def _spread(weights: Tensor, deviations: Tensor) -> Tensor:
    """Squared standard error of a weighted mean, from deviations [G, ...] of its parts."""
    count = len(weights)
    shaped = weights.view(-1, *[1] * (deviations.ndim - 1))
    return count / (count - 1) * (shaped * deviations).square().sum(0)


def cross_probe_error(values: Tensor, weights: Tensor) -> Tensor:
    """Standard error from the data of a mean over probes, free of the probes' own noise.

    The spread over groups is squared as a product of two different probes, so that what is random
    in a single one does not count.

    Args:
        values: [P, G, ...], one per probe and group.
        weights: [G], shares of the groups.
    """
    probes = len(values)
    shaped = weights.view(1, -1, *[1] * (values.ndim - 2))
    deviations = values - (shaped * values).sum(1, keepdim=True)
    total = deviations.sum(0)
    crossed = _spread(weights, total)
    own = torch.stack([_spread(weights, d) for d in deviations]).sum(0)
    return ((crossed - own) / (probes * (probes - 1))).clamp_min(0).sqrt()
