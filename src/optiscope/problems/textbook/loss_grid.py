"""The loss of a problem with two parameters, on a grid: the ground of a figure.

Index legend: N samples, U and V points along the two axes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap

from optiscope.objective.functional import functional_call
from optiscope.objective.sample_sums import sum_over_samples
from optiscope.problems.problem import Problem

__all__ = ["loss_grid"]

Array = NDArray[np.float64]

CHUNK = 2048
"""Points evaluated at a time."""


def loss_grid(problem: Problem, u: Array, v: Array) -> Array:
    """Mean loss over the training-evaluation samples at every (u, v), [V, U], in float64.

    Args:
        problem: with two trainable parameters.
        u: values of the first parameter [U].
        v: values of the second [V].

    Raises:
        ValueError: the problem has more or fewer parameters.
    """
    if problem.parameters != 2:
        raise ValueError(
            f"a landscape needs a problem with 2 parameters, got {problem.name} with "
            f"{problem.parameters:,}: choose another problem"
        )
    model = problem.make_model().double()
    samples = problem.data(None).train_eval
    inputs, targets = samples.select(torch.arange(len(samples)))
    if inputs.is_floating_point():
        inputs = inputs.double()
    if targets.is_floating_point():
        targets = targets.double()
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]

    def mean_loss(point: Tensor) -> Tensor:
        values = {}
        taken = 0
        for name, parameter in trainable:
            values[name] = point[taken : taken + parameter.numel()].view(parameter.shape)
            taken += parameter.numel()
        losses = problem.loss(functional_call(model, values, (inputs,)), targets)
        return sum_over_samples(losses, len(samples)) / len(samples)

    second, first = torch.meshgrid(
        torch.from_numpy(np.asarray(v, dtype=np.float64)),
        torch.from_numpy(np.asarray(u, dtype=np.float64)),
        indexing="ij",
    )
    points = torch.stack([first.flatten(), second.flatten()], 1)
    with torch.no_grad():
        losses = torch.cat([vmap(mean_loss)(chunk) for chunk in points.split(CHUNK)])
    grid: Array = losses.view(first.shape).numpy()
    return grid
