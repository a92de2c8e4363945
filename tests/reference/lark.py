"""Lark on matrices, slow and obvious: dense moments, exact eigendecompositions, float64.

Index legend: M rows, N columns of a weight; D either.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class ReferenceLark:
    """Weights [M, N] and everything known about them, as dense float64 matrices.

    Gathers in every step; renews where ``renew_every`` divides the step's number, and before the
    first such step at powers of two. ``horizon`` None means no annealing.
    """

    def __init__(
        self,
        weights: list[Tensor],
        *,
        rank: int,
        power: float = 0.4,
        momentum: float = 0.95,
        memory: float = 100.0,
        renew_every: int = 1,
        growth: float = 0.07,
        horizon: int | None = None,
        weight_decay: float = 0.0,
        lr: float = 1.0,
    ) -> None:
        self.weights = [w.detach().double().clone() for w in weights]
        self.momenta = [torch.zeros_like(w) for w in self.weights]
        self.left = [torch.zeros(len(w), len(w), dtype=torch.float64) for w in self.weights]
        self.right = [torch.zeros(w.shape[1], w.shape[1], dtype=torch.float64) for w in weights]
        self.by = [(torch.eye(len(w)).double(), torch.eye(w.shape[1]).double()) for w in weights]
        self.first = 0.01 if horizon is None else max(0.01, 1 / (3 * math.sqrt(horizon)))
        self.log_lengths = [math.log(self.first) for _ in weights]
        self.rank, self.power, self.momentum, self.memory = rank, power, momentum, memory
        self.renew_every, self.growth, self.horizon = renew_every, growth, horizon
        self.weight_decay, self.lr = weight_decay, lr
        self.number = self.renewed = 0

    def inverse_power(self, moment: Tensor) -> Tensor:
        """f(A) = (A / rest)^-power on the kept eigenvectors, the identity on the others."""
        values, vectors = torch.linalg.eigh(moment)
        values, vectors = values.flip(0), vectors.flip(1)
        k, d = min(self.rank, len(values)), len(values)
        if k == d:
            rest, floor = values.mean(), 1e-6 * values[0]
        else:
            rest = floor = torch.maximum(values[k:].mean(), 1e-6 * values[0])
        scaled = torch.maximum(values, floor) / rest
        scaled[k:] = 1.0
        return vectors @ torch.diag(scaled**-self.power) @ vectors.T

    def renews(self) -> bool:
        """Whether the factors are renewed in this step."""
        early = self.number < self.renew_every and self.number & (self.number - 1) == 0
        return early or self.number % self.renew_every == 0

    def step(self, gradients: list[Tensor]) -> None:
        """One step of every weight."""
        factor = self.lr * (1.0 if self.horizon is None else 1 - self.number / self.horizon)
        least = math.log(0.01 / max(1.0, self.lr))
        for i, g in enumerate(gradients):
            g = g.detach().double()
            f_left, f_right = self.by[i]
            old = self.momenta[i]
            own, kept, both = (
                torch.trace(x.T @ f_left @ y @ f_right) for x, y in ((g, g), (old, old), (g, old))
            )
            if own * kept > 0 and self.renews():
                steps = min(self.number - self.renewed, 10)
                longer = self.log_lengths[i] + self.growth * steps * float(
                    both / (own * kept).sqrt()
                )
                self.log_lengths[i] = min(max(longer, least), math.log(0.5))
            self.left[i] += (g @ g.T - self.left[i]) / self.memory
            self.right[i] += (g.T @ g - self.right[i]) / self.memory
            if self.renews():
                self.by[i] = (self.inverse_power(self.left[i]), self.inverse_power(self.right[i]))
            self.momenta[i] = self.momentum * old + (1 - self.momentum) * g
            ahead = self.momentum * self.momenta[i] + (1 - self.momentum) * g
            direction = self.by[i][0] @ ahead @ self.by[i][1]
            m, n = g.shape
            length = math.exp(self.log_lengths[i])
            unit = math.sqrt(min(m, n)) * math.sqrt(max(1.0, m / n))
            self.weights[i] *= 1 - self.weight_decay * factor * self.first
            self.weights[i] -= factor * length * unit * direction / direction.norm()
        if self.renews():
            self.renewed = self.number
        self.number += 1
