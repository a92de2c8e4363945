"""Noisy quadratics: the objective is a quadratic form around points scattered by noise.

Index legend: N points, B points in a batch, D dimensions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from optiscope.data.samples import Splits, TensorSamples
from optiscope.problems.losses import own_value
from optiscope.problems.problem import Problem
from optiscope.problems.published import baselines_of

__all__ = ["NoisyQuadratic", "deep_learning_hessian", "expected_first_loss", "quadratic_deep"]

NOISE = 0.6
"""Standard deviation of every coordinate of the points."""


class NoisyQuadratic(nn.Module):
    """½ (θ - x)ᵀ Q (θ - x) for each point x of a batch; θ is the only parameter.

    Args:
        hessian: Q [D, D], symmetric.
        start: initial θ [D].
    """

    def __init__(self, hessian: Tensor, start: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(start.clone())
        self.hessian: Tensor
        self.register_buffer("hessian", hessian)

    def forward(self, points: Tensor) -> Tensor:
        """Points [B, D] -> objective of each [B]."""
        offset = self.theta - points
        return 0.5 * (offset @ self.hessian * offset).sum(-1)


def _random_rotation(dimension: int, rng: np.random.RandomState) -> NDArray[np.float64]:
    """Matrix drawn uniformly from SO(dimension) by the subgroup algorithm, [D, D].

    Source: Diaconis & Shahshahani 1987. A rotation of d dimensions becomes one of d + 1 by
    leaving the new axis alone and then reflecting that axis to a random direction.
    """
    angle = 2 * np.pi * rng.uniform()
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for d in range(3, dimension + 1):
        direction = rng.normal(size=d)
        mirror = -direction / np.linalg.norm(direction)
        mirror[0] += 1.0
        mirror /= np.linalg.norm(mirror)
        larger = np.zeros((d, d))
        larger[0, 0], larger[1:, 1:] = 1.0, rotation
        rotation = larger - 2.0 * np.outer(mirror, mirror @ larger)
    return -rotation


def deep_learning_hessian(dimension: int = 100, seed: int = 42) -> NDArray[np.float64]:
    """Q [D, D] with nine tenths of its eigenvalues in (0, 1) and one tenth in (30, 60).

    The spectrum reported for deep networks by Chaudhari et al. 2017. The generator lives only as
    long as the call, so that every call returns the same matrix.
    """
    rng = np.random.RandomState(seed)
    large = dimension // 10
    eigenvalues = np.concatenate(
        [rng.uniform(0.0, 1.0, dimension - large), rng.uniform(30.0, 60.0, large)]
    )
    rotation = _random_rotation(dimension, rng)
    hessian: NDArray[np.float64] = (rotation.T * eigenvalues) @ rotation
    return hessian


def _points(seed: int, count: int = 1000, dimension: int = 100) -> TensorSamples:
    """``count`` points x ~ N(0, 0.6² I); the targets are zeros that the loss does not read."""
    drawn = np.random.RandomState(seed).normal(0.0, NOISE, (count, dimension))
    return TensorSamples(torch.from_numpy(drawn.astype(np.float32)), torch.zeros(count))


def _data(data_dir: Any) -> Splits:
    train = _points(42)
    return Splits(train=train, train_eval=train, valid=_points(44), test=_points(43))


def _model(dimension: int = 100) -> nn.Module:
    hessian = torch.from_numpy(deep_learning_hessian(dimension).astype(np.float32))
    return NoisyQuadratic(hessian, torch.ones(dimension))


def expected_first_loss(hessian: NDArray[np.float64]) -> float:
    """E ½ (1 - x)ᵀ Q (1 - x) over x ~ N(0, 0.6² I): half of 1ᵀQ1 + 0.36 tr Q."""
    return float(0.5 * (hessian.sum() + NOISE**2 * np.trace(hessian)))


quadratic_deep = Problem(
    name="quadratic_deep",
    make_model=partial(_model, 100),
    loss=own_value,
    data=_data,
    batch_size=128,
    epochs=100,
    metric=None,
    dataset="synthetic",
    parameters=100,
    source="DeepOBS (Schneider et al. 2019), quadratic_deep; spectrum of Chaudhari et al. 2017",
    licence="none needed: drawn from fixed seeds",
    first_loss=353.49955,  # expected_first_loss of the Hessian, over all points; a test checks it
    baselines=baselines_of("quadratic_deep"),
    notes="The Hessian is the one of the original's first set-up in a process; there, a second "
    "set-up drew another rotation. All 1,000 points of a set are evaluated, not 896.",
)
