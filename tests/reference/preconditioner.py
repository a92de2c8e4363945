"""Dense float64 reference of the probabilistic preconditioner: brute force, no cleverness.

Index legend: N parameters, M observations. S, Y [N, M] are directions and products as columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def conditioned_mean(b0: float, w0: float, noise: float, s: Tensor, y: Tensor) -> Tensor:
    """Posterior mean [N, N] by conditioning the Gaussian over all N^2 entries."""
    n, m = s.shape
    identity = torch.eye(n, dtype=s.dtype)
    maps = torch.cat([torch.kron(identity, s[:, i].unsqueeze(0)) for i in range(m)])
    variances = torch.cat([noise**2 * s[:, i].square().sum().repeat(n) for i in range(m)])
    mean = b0 * identity.flatten()
    cover = w0**2 * maps @ maps.mT + torch.diag(variances)
    gain = w0**2 * maps.mT @ torch.linalg.inv(cover)
    return (mean + gain @ (y.mT.flatten() - maps @ mean)).view(n, n)


def conditioned_covariance(w0: float, noise: float, s: Tensor) -> Tensor:
    """Posterior covariance [N^2, N^2] of the entries, row by row."""
    n, m = s.shape
    identity = torch.eye(n, dtype=s.dtype)
    maps = torch.cat([torch.kron(identity, s[:, i].unsqueeze(0)) for i in range(m)])
    variances = torch.cat([noise**2 * s[:, i].square().sum().repeat(n) for i in range(m)])
    cover = w0**2 * maps @ maps.mT + torch.diag(variances)
    whole = w0**2 * torch.eye(n * n, dtype=s.dtype)
    return whole - w0**4 * maps.mT @ torch.linalg.inv(cover) @ maps


def log_density(b0: float, w0: float, noise: float, s: Tensor, y: Tensor) -> Tensor:
    """Logarithm of the density of all N M entries of the products."""
    identity = torch.eye(len(s), dtype=s.dtype)
    cover = torch.kron(w0**2 * s.mT @ s + noise**2 * torch.diag(s.square().sum(dim=0)), identity)
    normal = torch.distributions.MultivariateNormal((b0 * s).mT.flatten(), cover)
    return normal.log_prob(y.mT.flatten())


def symmetric_mean(b0: float, ratio: float, s: Tensor, y: Tensor) -> Tensor:
    """Least squares over symmetric matrices: |B - b0 I|_F^2 ratio + sum |y - Bs|^2 / |s|^2."""
    n = len(s)
    pairs = [(i, j) for i in range(n) for j in range(i, n)]
    units = torch.zeros(len(pairs), n, n, dtype=s.dtype)
    for k, (i, j) in enumerate(pairs):
        units[k, i, j] = units[k, j, i] = 1 if i == j else 0.5**0.5
    lengths = s.norm(dim=0)
    observed = torch.stack([(u @ s / lengths).flatten() for u in units], dim=1)
    target = ((y - b0 * s) / lengths).flatten()
    if ratio > 0:
        penalty = torch.eye(len(pairs), dtype=s.dtype) * ratio**0.5
        observed = torch.cat([observed, penalty])
        target = torch.cat([target, torch.zeros(len(pairs), dtype=s.dtype)])
    weights = torch.linalg.pinv(observed) @ target
    return b0 * torch.eye(n, dtype=s.dtype) + (weights.view(-1, 1, 1) * units).sum(dim=0)


@dataclass
class DensePreconditioner:
    """The optimizer's estimation and steps on a flat parameter vector, with full matrices.

    ``gradient(w, t)`` and ``hessian(w, t)`` give the t-th batch's derivatives.
    """

    weights: Tensor
    est_rank: int
    num_observations: int
    prior_iterations: int

    def __post_init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.observed: list[tuple[Tensor, Tensor]] = []
        self.rate: float | None = None
        self.matrix: Tensor | None = None

    def step(self, gradient: Tensor, hessian: Tensor) -> None:
        """One batch: estimation where it is due, then an update."""
        identity = torch.eye(len(self.weights), dtype=self.weights.dtype)
        if len(self.pairs) < self.prior_iterations:
            self.pairs.append((gradient, hessian @ gradient))
            self._prior()
        elif len(self.observed) < self.num_observations:
            if not self.observed:
                mean = torch.stack([s for s, _ in self.pairs]).mean(dim=0)
                direction = -mean / self.b0
            else:
                s = torch.stack([s for s, _ in self.observed], dim=1)
                y = torch.stack([y for _, y in self.observed], dim=1)
                estimate = conditioned_mean(self.b0, self.w0, self.noise, s, y)
                direction = -torch.linalg.solve(estimate, gradient)
            direction = direction / direction.norm()
            self.observed.append((direction, hessian @ direction))
            if len(self.observed) == self.num_observations:
                self._factorize()
        matrix = identity if self.matrix is None else self.matrix
        self.weights = self.weights - self.rate * (matrix @ gradient)

    def _prior(self) -> None:
        sy = sum(s @ y for s, y in self.pairs)
        yy = sum(y @ y for _, y in self.pairs)
        ss = sum(s @ s for s, _ in self.pairs)
        self.rate = float(sy / yy)
        self.b0, self.w0 = float(yy / sy), float(sy / ss)
        total = torch.stack([s for s, _ in self.pairs])
        n = total.shape[1]
        self.noise = float(total.var(dim=0).sum() / n) ** 0.5 if len(total) > 1 else 0.0

    def _factorize(self) -> None:
        s = torch.stack([s for s, _ in self.observed], dim=1)
        y = torch.stack([y for _, y in self.observed], dim=1)
        estimate = symmetric_mean(self.b0, (self.noise / self.w0) ** 2, s, y)
        values, vectors = torch.linalg.eigh(estimate)
        order = values.abs().argsort(descending=True)[: self.est_rank]
        kept, basis = values[order].abs(), vectors[:, order]
        lowest = kept.min()
        self.matrix = torch.eye(len(s), dtype=s.dtype)
        self.matrix += basis @ torch.diag(lowest / kept - 1) @ basis.mT
