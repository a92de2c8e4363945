"""The spread of activations and gradients layer by layer, before any training.

Where it grows or shrinks from layer to layer, an initialisation does not fit the network: forward,
units saturate or die; backward, the first layers learn at another speed than the last.

Index legend: B samples in a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.data.samples import Batch
from optiscope.problems.model_summary import watching

__all__ = ["LayerSpread", "signal_spread"]

SHAPING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Unfold)
"""Layers that only move values about; they are left out."""


@dataclass(frozen=True)
class LayerSpread:
    """What passes through one layer, over a batch and all the layer's calls.

    Attributes:
        name: path within the model.
        kind: its class.
        mean: of its outputs.
        std: standard deviation of its outputs over samples and units.
        zeros: share of outputs that are exactly 0.
        gradient: root mean square of a sample's loss's gradient by an output; None where no
            gradient passes.
        weight_gradient: root mean square of the mean loss's gradient by a weight; None without
            weights.
    """

    name: str
    kind: str
    mean: float
    std: float
    zeros: float
    gradient: float | None
    weight_gradient: float | None


@dataclass
class _Sums:
    """Running sums over calls of a layer."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    zeros: int = 0
    gradient_count: int = 0
    gradient_squares: float = 0.0


def signal_spread(
    model: nn.Module, loss: Callable[[Any, Tensor], Tensor], batch: Batch
) -> list[LayerSpread]:
    """Spread of the outputs of every layer and of the loss's gradients by them.

    The model runs once in training mode, forward and backward, on a copy; torch's global generator
    is restored. A layer that is called several times, as in a recurrent network, is summed up over
    its calls.

    Args:
        model: left as it is.
        loss: ``loss(outputs, targets)`` -> per-sample losses [B].
        batch: B samples.
    """
    model = copy.deepcopy(model).train()
    sums: dict[str, tuple[nn.Module, _Sums]] = {}

    def note(name: str, layer: nn.Module, output: Tensor) -> None:
        if isinstance(layer, SHAPING) or not output.is_floating_point():
            return
        _, found = sums.setdefault(name, (layer, _Sums()))
        values = output.detach().double()
        found.count += values.numel()
        found.total += values.sum().item()
        found.squares += values.square().sum().item()
        found.zeros += int((values == 0).sum())
        if output.requires_grad:
            output.register_hook(lambda gradient: _add(found, gradient))

    with torch.random.fork_rng(), watching(model, note):
        losses = loss(model(batch.inputs), batch.targets)
        losses.sum().backward()
    return [_spread(name, layer, found, len(losses)) for name, (layer, found) in sums.items()]


def _add(found: _Sums, gradient: Tensor) -> None:
    found.gradient_count += gradient.numel()
    found.gradient_squares += gradient.detach().double().square().sum().item()


def _spread(name: str, layer: nn.Module, found: _Sums, samples: int) -> LayerSpread:
    mean = found.total / found.count
    gradients = [
        p.grad.double().flatten() / samples
        for p in layer.parameters(recurse=False)
        if p.ndim > 1 and p.grad is not None
    ]
    return LayerSpread(
        name=name,
        kind=type(layer).__name__,
        mean=mean,
        std=max(found.squares / found.count - mean**2, 0.0) ** 0.5,
        zeros=found.zeros / found.count,
        gradient=(found.gradient_squares / found.gradient_count) ** 0.5
        if found.gradient_count
        else None,
        weight_gradient=float(torch.cat(gradients).square().mean().sqrt()) if gradients else None,
    )
