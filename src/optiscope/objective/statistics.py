"""Statistics that a model gathers in training, recomputed for the weights that it has now.

Batch norm's running mean and variance belong to the weights that were trained with. Where others
are evaluated, an average of those visited (Schedule-Free methods, Lark without ``total_steps``,
exponential averages), they have to be gathered anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn

__all__ = ["has_statistics", "recompute_statistics", "statistics_of_these_weights"]

MAX_BATCHES = 50


def has_statistics(model: nn.Module) -> bool:
    """Whether a model gathers statistics of its inputs (batch norm that tracks them)."""
    return any(_gathers(module) for module in model.modules())


class _Gathering(Protocol):
    """A batch norm, or another normalization, that keeps running statistics."""

    momentum: float | None

    def reset_running_stats(self) -> None: ...


def _gathers(module: object) -> bool:
    """Whether it is a batch norm, or another normalization, that keeps a running mean."""
    return isinstance(getattr(module, "running_mean", None), Tensor)


def _gathers_with_momentum(module: object) -> TypeGuard[_Gathering]:
    return _gathers(module) and hasattr(module, "momentum")


def _call(model: nn.Module, batch: Any) -> None:
    """A forward pass on the batch's inputs, on the model's device."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if isinstance(batch, Mapping):
        model(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()})
        return
    inputs = batch[0] if isinstance(batch, tuple | list) else batch
    model(inputs.to(device) if isinstance(inputs, Tensor) else inputs)


@torch.no_grad()
def recompute_statistics(
    model: nn.Module,
    batches: Iterable[Any],
    max_batches: int = MAX_BATCHES,
    forward: Callable[[nn.Module, Any], object] = _call,
) -> None:
    """Replace a model's running statistics by those of ``batches`` at its weights as they are.

    Means over the batches, each of equal weight. Of modules with buffers of other kinds (a spectral
    norm's vectors, a codebook) the forward passes are those of training, so that their buffers
    follow. Dropout is off, and all modules are in the mode afterwards that they were in before.

    Args:
        model: in any mode.
        batches: inputs, or tuples or lists that begin with them, or mappings of keyword arguments:
            a DataLoader of training data, say.
        max_batches: how many are looked at.
        forward: how the model is called on a batch, where it is none of these.

    Raises:
        ValueError: there is no batch, so that there are no statistics either.
    """
    modes = {module: module.training for module in model.modules()}
    momenta = [(m, m.momentum) for m in modes if _gathers_with_momentum(m)]
    seen = 0
    try:
        for module in modes:
            module.training = any(True for _ in module.buffers(recurse=False))
        for gathering, _ in momenta:
            gathering.reset_running_stats()
            gathering.momentum = None
        for batch in islice(batches, max_batches):
            forward(model, batch)
            seen += 1
    finally:
        for module, training in modes.items():
            module.training = training
        for gathering, momentum in momenta:
            gathering.momentum = momentum
    if momenta and not seen:
        raise ValueError(
            "expected at least one batch to gather statistics from, got none: pass a DataLoader of "
            "training data, and a new one where it was an iterator that has ended"
        )


@contextmanager
def statistics_of_these_weights(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[nn.Module, Any], object] = _call,
) -> Iterator[None]:
    """:func:`recompute_statistics` until the block ends; then all buffers are as they were."""
    before = {
        (module, name): buffer.detach().clone()
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    }
    try:
        recompute_statistics(model, batches, forward=forward)
        yield
    finally:
        with torch.no_grad():
            for (module, name), buffer in before.items():
                getattr(module, name).copy_(buffer)
