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
    """The optimizer's estimation and steps on a flat parameter vector, with full matrices."""

    weights: Tensor
    est_rank: int
    num_observations: int
    prior_iterations: int
    preconditions: bool = True

    def __post_init__(self) -> None:
        self.rate: float | None = None
        self.basis: Tensor | None = None
        self.matrix = torch.eye(len(self.weights), dtype=self.weights.dtype)
        self.estimates = 0
        generator = torch.Generator().manual_seed(0)
        self.power = torch.randn(len(self.weights), generator=generator, dtype=torch.float64)
        self.restart()

    def restart(self) -> None:
        """Begin a new estimation."""
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.observed: list[tuple[Tensor, Tensor]] = []
        self.ready, self.powers = False, 0

    def step(self, gradient: Tensor, hessian: Tensor) -> None:
        """One batch: estimation where it is due, then an update."""
        if len(self.pairs) < self.prior_iterations:
            self.pairs.append((gradient, hessian @ gradient))
            if len(self.pairs) == self.prior_iterations:
                self._prior()
        elif not self.ready and len(self.observed) == self.num_observations:
            self._power(hessian)
        elif not self.ready:
            direction = self._direction()
            self.observed.append((direction, hessian @ direction))
            if len(self.observed) == self.num_observations:
                self._factorize()
        if self.rate is not None:
            self.weights = self.weights - self.rate * (self.matrix @ gradient)

    def _direction(self) -> Tensor:
        done = len(self.observed)
        carried = 0
        if self.basis is not None:
            carried = min(self.basis.shape[1], self.num_observations - 1)
            if done < carried:
                return self.basis[:, done]
        direction = torch.stack([y for _, y in self.pairs]).mean(dim=0)
        if done > 0:
            s, y = (torch.stack(rows, dim=1) for rows in zip(*self.observed, strict=True))
            if done > carried:
                estimate = conditioned_mean(self.b0, self.w0, self.noise, s, y)
                values, vectors, q = self._inside(estimate, s)
                images = estimate @ q @ vectors[:, values.abs().argsort(descending=True)]
                outside = (images - q @ (q.mT @ images)).norm(dim=0) >= 0.01 * images.norm(dim=0)
                direction = images[:, outside][:, 0]
            direction = direction - s @ torch.linalg.pinv(s) @ direction
        return direction / direction.norm()

    def _prior(self) -> None:
        sy = sum(float(s @ y) for s, y in self.pairs)
        yy = sum(float(y @ y) for _, y in self.pairs)
        ss = sum(float(s @ s) for s, _ in self.pairs)
        self.b0, self.w0 = yy / sy, sy / ss
        gradients = torch.stack([s for s, _ in self.pairs])
        self.noise = float(gradients.var(dim=0).mean()) ** 0.5
        self.length = float(gradients.mean(dim=0).norm())
        self.constructed = self._bounded(sy / yy)
        if self.rate is None:
            self.rate = self.constructed

    def _bounded(self, rate: float) -> float:
        rate = min(rate, (1 + float(self.weights.norm())) / self.length)
        return min(rate, 2 * self.rate) if self.estimates and self.rate else rate

    def _factorize(self) -> None:
        s, y = (torch.stack(rows, dim=1) for rows in zip(*self.observed, strict=True))
        estimate = conditioned_mean(self.b0, self.w0, self.noise, s, y)
        values, vectors, q = self._inside(estimate, s)
        order = values.abs().argsort(descending=True)[: self.est_rank]
        kept, self.basis = values[order].abs(), q @ vectors[:, order]
        if self.preconditions:
            lowest = kept.min()
            self.matrix = torch.eye(len(s), dtype=s.dtype)
            self.matrix += self.basis @ torch.diag(lowest / kept - 1) @ self.basis.mT
            rate = float((s * y).sum() / (y * (self.matrix @ y)).sum())
            self.constructed = self._bounded(min(rate, 1 / float(lowest)))
        else:
            self._finish(min(self.constructed, 1 / float(kept.max())))

    @staticmethod
    def _inside(estimate: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenpairs of the mean within the span of s, and an orthonormal basis of it."""
        q = torch.linalg.qr(s).Q
        inside = q.mT @ estimate @ q
        values, vectors = torch.linalg.eigh((inside + inside.mT) / 2)
        return values, vectors, q

    def _power(self, hessian: Tensor) -> None:
        image = hessian @ self.power
        gain = (
            image @ self.matrix @ image / (self.power @ torch.linalg.inv(self.matrix) @ self.power)
        )
        limit = float(gain) ** 0.5
        if self.powers == 3:
            gap = image - self.last_image
            along = self.power @ (image + self.last_image) / 2
            noisy = image @ self.matrix @ self.last_image + gap @ self.matrix @ gap / 2
            limit = max(limit, float(noisy / along))
        if self.powers == 2:
            self.last_image = image
        else:
            self.power = self.matrix @ image / (self.matrix @ image).norm()
        self.constructed = min(self.constructed, 1 / limit)
        self.powers += 1
        if self.powers == 4:
            self._finish(self.constructed)

    def _finish(self, rate: float) -> None:
        self.rate, self.ready = rate, True
        self.estimates += 1
