"""Running statistics of batch norm at parameters that no training has visited.

Between two checkpoints neither's statistics fit the activations: the loss of a mixture of weights
with stale statistics says nothing about the weights. Here every batch is run once in training
mode, and means and variances of all batches are pooled.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.objective.risk import EmpiricalRisk
from optiscope.objective.substitution import normalizes_over_batch, substituted

__all__ = ["has_statistics", "recomputed_statistics", "with_batch_statistics"]


def has_statistics(risk: EmpiricalRisk) -> bool:
    """Whether the risk depends on running statistics of its model."""
    return risk.batch_norm == "running" and any(_tracking(risk.model))


def with_batch_statistics(risk: EmpiricalRisk) -> EmpiricalRisk:
    """The same risk with batch norm by the statistics of each batch: what training descends."""
    if not has_statistics(risk):
        return risk
    training = copy.copy(risk)
    training.batch_norm = "batch"
    training._operators = {}
    return training


def recomputed_statistics(risk: EmpiricalRisk, theta: Tensor) -> dict[str, Tensor]:
    """Buffers of the running means and variances at ``theta`` [N], by name.

    Means and variances of the batches are pooled with their number of samples: the variance of all
    samples, not the mean of the batches' variances. One forward pass over all batches.
    """
    training = with_batch_statistics(risk)
    leaves = training.leaves(training.point(theta))
    buffers = {name: buffer.clone() for name, buffer in leaves.buffers.items()}
    names = [
        (f"{path}.running_mean".lstrip("."), f"{path}.running_var".lstrip("."))
        for path, module in risk.model.named_modules()
        if _tracks(module)
    ]
    names = [pair for pair in names if pair[0] in buffers]  # shared modules count once
    sums = {name: torch.zeros_like(buffers[name], dtype=torch.float64) for p in names for name in p}
    samples = 0
    with torch.no_grad(), _momentum_of_one(risk.model):
        for each in training.passes(leaves):
            with training.guards(), substituted(risk.model, leaves.parameters, buffers):
                risk.model(*each.batch.args, **each.batch.kwargs)
            count = each.batch.samples
            for mean_name, var_name in names:
                mean, var = buffers[mean_name].double(), buffers[var_name].double()
                sums[mean_name] += count * mean
                sums[var_name] += count * (var + mean.square())
            samples += count
    pooled: dict[str, Tensor] = {}
    for mean_name, var_name in names:
        mean = sums[mean_name] / samples
        pooled[mean_name] = mean.to(buffers[mean_name])
        var = sums[var_name] / samples - mean.square()
        pooled[var_name] = var.clamp_min(0.0).to(buffers[var_name])
    return pooled


def _tracks(module: nn.Module) -> bool:
    return normalizes_over_batch(module) and module._buffers.get("running_mean") is not None


def _tracking(model: nn.Module) -> Iterator[bool]:
    return map(_tracks, model.modules())


@contextmanager
def _momentum_of_one(model: nn.Module) -> Iterator[None]:
    """Running statistics become those of the last batch."""
    momenta: list[tuple[Any, Any]] = [
        (m, m.momentum) for m in model.modules() if _tracks(m) and hasattr(m, "momentum")
    ]
    try:
        for module, _ in momenta:
            module.momentum = 1.0
        yield
    finally:
        for module, momentum in momenta:
            module.momentum = momentum
