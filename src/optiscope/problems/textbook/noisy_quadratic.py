"""The noisy quadratic model: the best learning rate of every step and the error it leaves, known.

Each of D parameters has curvature h, starts at 1 and sees gradients with noise of variance σ².
With a rate η a step changes the mean square error E of a parameter to (1 - η h)² E + η² σ². The
best rate is η = h E / (h² E + σ²), after which 1/E has grown by h² / σ². The excess loss ½ h E
after k steps is therefore ½ h / (1 + k h² / σ²): O(1/k) for any one curvature. Where the curvature
is not bounded from below, the worst for k steps is h = σ / √k, with ¼ σ / √k: O(1/√k).

Sources: Schaul, Zhang & LeCun 2013; Zhang et al. 2019 (noisy quadratic model).

Index legend: N samples, B samples in a batch, D parameters.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optiscope.data.samples import Splits, TensorSamples
from optiscope.problems.losses import own_value
from optiscope.problems.problem import Problem
from optiscope.problems.textbook.surface import Surface

__all__ = [
    "best_rate",
    "excess_after",
    "excess_of_constant_rate",
    "noisy_quadratic",
    "textbook_noisy_quadratic",
    "worst_curvature",
    "worst_excess_after",
]

DIMENSION = 500
SAMPLES = 2048


def best_rate(step: int, curvature: float = 1.0, noise: float = 1.0) -> float:
    """The rate of step ``step``, counted from 0, that leaves the smallest expected loss."""
    error = 1.0 / (1.0 + step * (curvature / noise) ** 2)
    return curvature * error / (curvature**2 * error + noise**2)


def excess_after(steps: int, curvature: float = 1.0, noise: float = 1.0) -> float:
    """Expected loss of a parameter after ``steps`` steps of the best rates."""
    return 0.5 * curvature / (1.0 + steps * (curvature / noise) ** 2)


def excess_of_constant_rate(
    steps: int, rate: float, curvature: float = 1.0, noise: float = 1.0
) -> float:
    """Expected loss of a parameter after ``steps`` steps of one rate.

    It falls by (1 - η h)² a step towards ½ η σ² / (2 - η h) and no further.
    """
    factor = (1.0 - rate * curvature) ** 2
    floor = rate * noise**2 / (curvature * (2.0 - rate * curvature))
    return 0.5 * curvature * (floor + (1.0 - floor) * factor**steps)


def worst_curvature(steps: int, noise: float = 1.0) -> float:
    """The curvature whose loss after ``steps`` steps of its best rates is the largest."""
    return noise / math.sqrt(steps)


def worst_excess_after(steps: int, noise: float = 1.0) -> float:
    """That loss: ¼ σ / √k."""
    return 0.25 * noise / math.sqrt(steps)


def _bowl(point: Tensor, curvature: float) -> Tensor:
    """½ h ‖θ‖²."""
    return 0.5 * curvature * point.square().sum()


def _splits(data_dir: Any, *, noise: float, dimension: int) -> Splits:
    """Independent noise, every sample new, so that one epoch is what the theory assumes."""
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int) -> TensorSamples:
        samples = torch.randn(count, dimension, generator=generator) * noise
        return TensorSamples(samples, torch.zeros(count))

    train = drawn(SAMPLES)
    exact = TensorSamples(torch.zeros(1, dimension), torch.zeros(1))
    return Splits(
        train=train, train_eval=train.subset(torch.arange(256)), valid=drawn(256), test=exact
    )


def noisy_quadratic(
    curvature: float = 1.0,
    noise: float = 1.0,
    *,
    dimension: int = DIMENSION,
    name: str = "noisy_quadratic",
) -> Problem:
    """The sum over D independent parameters of ½ h θ² with gradient noise σ.

    D parameters repeat the experiment D times: the loss of one run, divided by D, measures the
    expectation for one parameter.

    Args:
        curvature: h of every parameter.
        noise: σ of a sample's gradient, per parameter.
        dimension: D.
        name: of the problem.
    """
    return Problem(
        name=name,
        make_model=partial(Surface, partial(_bowl, curvature=curvature), (1.0,) * dimension),
        loss=own_value,
        data=partial(_splits, noise=noise, dimension=dimension),
        batch_size=1,
        epochs=1,
        metric=None,
        dataset="synthetic",
        parameters=dimension,
        source="Schaul, Zhang & LeCun 2013; Zhang et al. 2019",
        licence="none needed: drawn from fixed seeds",
        first_loss=0.5 * curvature * dimension,
        notes=f"One pass over {SAMPLES:,} samples in steps of one sample; the test set is one "
        f"sample without noise. The best rates leave an expected test loss of "
        f"{dimension * excess_after(SAMPLES, curvature, noise):.3g} at the end.",
        tags=("textbook",),
    )


textbook_noisy_quadratic = noisy_quadratic(name="textbook_noisy_quadratic")
