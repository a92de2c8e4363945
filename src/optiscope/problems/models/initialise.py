"""Weight initialisation by layer kind, as the problems' sources state it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

__all__ = ["he_normal", "initialise", "truncated_normal"]

Fill = Callable[[Tensor], Any]
"""Overwrites a weight in place with freshly drawn values."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def truncated_normal(std: float) -> Fill:
    """Normal with mean 0 and standard deviation ``std``, cut at two standard deviations.

    The cut lowers the standard deviation of what is drawn to 0.8796 ``std``.
    """
    return partial(nn.init.trunc_normal_, std=std, a=-2 * std, b=2 * std)


def he_normal(weight: Tensor) -> Tensor:
    """Normal with variance 2 / fan-in: keeps the second moment through layers with ReLU."""
    return nn.init.kaiming_normal_(weight, nonlinearity="relu")


def initialise(
    model: nn.Module, *, linear: Fill, conv: Fill | None = None, bias: float = 0.0
) -> None:
    """Draw the weights of all linear and convolutional layers and set their biases.

    Args:
        model: changed in place.
        linear: rule for linear weights [out, in].
        conv: rule for convolution kernels [out, in, kh, kw]; ``linear`` when None.
        bias: value of every bias of these layers.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            linear(layer.weight)
        elif isinstance(layer, CONVOLUTIONS):
            (conv or linear)(layer.weight)
        else:
            continue
        if layer.bias is not None:
            nn.init.constant_(layer.bias, bias)
