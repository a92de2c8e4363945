"""Classic functions of two variables, made stochastic by a random linear term.

Every sample (x, y) gives f(u, v) + u·x + v·y; samples are N(0, 1), so that f is the expectation.

Index legend: B samples in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optiscope.data.samples import Splits, TensorSamples
from optiscope.problems.losses import own_value
from optiscope.problems.problem import Problem

__all__ = [
    "NoisySurface",
    "beale",
    "branin",
    "rosenbrock",
    "two_d_beale",
    "two_d_branin",
    "two_d_rosenbrock",
]

Surface = Callable[[Tensor, Tensor], Tensor]
"""A function f(u, v) of two scalars."""


def rosenbrock(u: Tensor, v: Tensor) -> Tensor:
    """(1 - u)² + 100 (v - u²)²; minimum 0 at (1, 1), at the end of a curved valley."""
    return (1 - u) ** 2 + 100 * (v - u**2) ** 2


def beale(u: Tensor, v: Tensor) -> Tensor:
    """Beale's function; minimum 0 at (3, 0.5)."""
    return (1.5 - u + u * v) ** 2 + (2.25 - u + u * v**2) ** 2 + (2.625 - u + u * v**3) ** 2


def branin(u: Tensor, v: Tensor) -> Tensor:
    """Branin's function; three equal minima of 0.3979 at (-π, 12.275), (π, 2.275), (3π, 2.475)."""
    bowl = v - 5.1 / (4 * math.pi**2) * u**2 + 5 / math.pi * u - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * torch.cos(u) + 10


class NoisySurface(nn.Module):
    """f(u, v) + u·x + v·y for each sample (x, y); the parameter is the point (u, v)."""

    def __init__(self, surface: Surface, start: tuple[float, float]) -> None:
        super().__init__()
        self.surface = surface
        self.point = nn.Parameter(torch.tensor(start))

    def forward(self, noise: Tensor) -> Tensor:
        """Samples [B, 2] -> objective of each [B]."""
        u, v = self.point.unbind()
        return self.surface(u, v) + noise @ self.point


def _noise(seed: int, count: int = 10_000) -> TensorSamples:
    """``count`` samples (x, y), all x drawn before all y; the targets are zeros, not read."""
    drawn = np.random.RandomState(seed).normal(0.0, 1.0, (2, count)).T
    return TensorSamples(torch.from_numpy(drawn.astype(np.float32)), torch.zeros(count))


def _data(data_dir: Any) -> Splits:
    train = _noise(42)
    exact = TensorSamples(torch.zeros(1, 2), torch.zeros(1))
    return Splits(train=train, train_eval=train, valid=_noise(44), test=exact)


_two_d = partial(
    Problem,
    loss=own_value,
    data=_data,
    batch_size=128,
    epochs=100,
    metric=None,
    dataset="synthetic",
    parameters=2,
    source="DeepOBS 1.1 (TensorFlow), two_d",
    licence="none needed: drawn from fixed seeds",
    notes="The test set is one sample without noise, so that the test loss is the function "
    "itself (the original repeats it 10,000 times). The original sets no horizon.",
)

two_d_rosenbrock = _two_d(
    name="two_d_rosenbrock",
    make_model=partial(NoisySurface, rosenbrock, (-0.5, 1.5)),
    first_loss=158.5,  # 1.5² + 100 · 1.25²
)

two_d_beale = _two_d(
    name="two_d_beale",
    make_model=partial(NoisySurface, beale, (-4.5, 4.5)),
    first_loss=43438293 / 256,  # (57/4)² + (675/8)² + (6447/16)²
)

two_d_branin = _two_d(
    name="two_d_branin",
    make_model=partial(NoisySurface, branin, (2.5, 12.5)),
    first_loss=95.84466836509729,  # f(2.5, 12.5)
)
