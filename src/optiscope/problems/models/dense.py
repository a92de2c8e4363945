"""Networks of linear layers on flattened images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from optiscope.problems.models.initialise import Fill, initialise

__all__ = ["autoencoder", "logistic_regression", "multilayer_perceptron"]


def logistic_regression(inputs: int, classes: int) -> nn.Module:
    """One linear layer from zero weights, so that every class starts with equal probability."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes))
    initialise(model, linear=nn.init.zeros_)
    return model


def multilayer_perceptron(widths: Sequence[int], fill: Fill) -> nn.Module:
    """Linear layers of the given ``widths`` (input first) with ReLU between; biases 0."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    initialise(model, linear=fill)
    return model


def autoencoder(pixels: int = 8, hidden: int = 32, code: int = 8) -> nn.Module:
    """Images [B, 1, pixels, pixels] through a bottleneck of ``code`` tanh units and back.

    Glorot-uniform weights, biases 0.
    """
    size = pixels**2
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(size, hidden),
        nn.Tanh(),
        nn.Linear(hidden, code),
        nn.Tanh(),
        nn.Linear(code, hidden),
        nn.Tanh(),
        nn.Linear(hidden, size),
        nn.Unflatten(1, (1, pixels, pixels)),
    )
    initialise(model, linear=nn.init.xavier_uniform_)
    return model
