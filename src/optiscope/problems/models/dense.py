"""Networks of linear layers on flattened images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from optiscope.problems.models.initialise import Fill, initialise

__all__ = ["logistic_regression", "multilayer_perceptron"]


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
