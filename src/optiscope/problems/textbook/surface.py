"""Functions of a few parameters as problems, with gradient noise that a whole batch cancels.

A sample x adds the linear term θ·x to the function, and its gradient adds x. Training samples come
in pairs ±x of multiples of a power of two: over all of them the noise cancels without a rounding
error, so that the default batch, the whole training set, gives the exact gradient and a smaller
batch gives a noisy one.

Index legend: N samples, B samples in a batch, D parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.data.samples import Splits, TensorSamples
from optiscope.problems.losses import own_value
from optiscope.problems.problem import Problem

__all__ = ["SAMPLES", "Surface", "paired_noise", "surface_problem"]

SAMPLES = 16
"""Training samples, and the default batch: an epoch is one step with the exact gradient."""

NOISE = 0.125
"""Default standard deviation of a sample's gradient noise, per parameter."""

GRAIN = 2.0**-12
"""Noise is a multiple of this, so that single precision adds it up exactly."""


class Surface(nn.Module):
    """f(θ) + θ·x for each sample x; θ is the only parameter.

    Args:
        function: f, of a tensor [D], differentiable.
        start: initial θ, D numbers.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], start: Sequence[float]) -> None:
        super().__init__()
        self.function = function
        self.point = nn.Parameter(torch.tensor(start, dtype=torch.get_default_dtype()))

    def forward(self, noise: Tensor) -> Tensor:
        """Samples [B, D] -> objective of each [B]."""
        return self.function(self.point) + noise @ self.point


def paired_noise(count: int, dimension: int, std: float, seed: int) -> TensorSamples:
    """``count`` samples [N, D] of about that standard deviation, in pairs of opposite sign."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(count // 2, dimension, generator=generator) * std
    grained = (half / GRAIN).round() * GRAIN
    return TensorSamples(torch.cat([grained, -grained]), torch.zeros(2 * (count // 2)))


def _splits(data_dir: Any, *, dimension: int, noise: float) -> Splits:
    train, valid = (paired_noise(SAMPLES, dimension, noise, seed) for seed in (0, 1))
    exact = TensorSamples(torch.zeros(1, dimension), torch.zeros(1))
    return Splits(train=train, train_eval=train, valid=valid, test=exact)


def surface_problem(
    name: str,
    function: Callable[[Tensor], Tensor],
    start: Sequence[float],
    *,
    epochs: int,
    source: str,
    noise: float = NOISE,
    notes: str = "",
) -> Problem:
    """A problem whose objective is a function of its few parameters.

    Args:
        name: word by which studies name it.
        function: f, of a tensor [D].
        start: initial parameters; ``first_loss`` is f there.
        epochs: horizon; at the default batch an epoch is one step.
        source: where the function comes from.
        noise: standard deviation of a sample's gradient noise, per parameter.
        notes: what is known of it, in words.
    """
    at_start = function(torch.tensor(start, dtype=torch.float64)).item()
    exact = f"The default batch is the whole training set of {SAMPLES} samples, whose gradient "
    exact += f"noise cancels; a smaller batch has noise of {noise:g} a sample and parameter."
    return Problem(
        name=name,
        make_model=partial(Surface, function, tuple(start)),
        loss=own_value,
        data=partial(_splits, dimension=len(start), noise=noise),
        batch_size=SAMPLES,
        epochs=epochs,
        metric=None,
        dataset="synthetic",
        parameters=len(start),
        source=source,
        licence="none needed: drawn from fixed seeds",
        first_loss=at_start,
        notes=f"{notes} {exact}".strip(),
        tags=("textbook",),
    )
