"""Groups of parameters by layer, with a regularization and a factor on the rate for each."""

from __future__ import annotations

from torch import nn

from optiscope.problems.models.initialise import CONVOLUTIONS
from optiscope.problems.problem import ParamGroup

__all__ = ["per_layer_groups"]


def per_layer_groups(model: nn.Module) -> list[ParamGroup]:
    """Four groups, in the manner of cuda-convnet's networks for CIFAR-10 (Krizhevsky 2012).

    Kernels carry little L2 and linear weights much; the output layer's weights learn at half
    the rate; biases learn at twice the rate and carry none.
    """
    weights = [
        (layer, layer.weight)
        for layer in model.modules()
        if isinstance(layer, (nn.Linear, *CONVOLUTIONS))
    ]
    kernels = [weight for layer, weight in weights if isinstance(layer, CONVOLUTIONS)]
    *hidden, output = [weight for layer, weight in weights if isinstance(layer, nn.Linear)]
    biases = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [
        {"name": "kernels", "params": kernels, "l2": 5e-4},
        {"name": "hidden", "params": hidden, "l2": 4e-3},
        {"name": "output", "params": [output], "l2": 2e-3, "lr_scale": 0.5},
        {"name": "biases", "params": biases, "lr_scale": 2.0},
    ]
