"""Gradients of each sample: a batch at once where ``torch.func`` can, else one by one.

``vmap`` cannot follow a model whose operations depend on values, mutate buffers, draw random
numbers, or have no rule. What it gives is compared, on the first batch, with samples that were
computed one by one, so that a model that treats a batch in a way of its own is found out.

Index legend: N parameters, B samples in a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from optiscope.objective.batches import ModelBatch
from optiscope.objective.products import FlatParameters

__all__ = ["batched_gradients", "same_gradients"]

_CHUNK_BYTES = 256 * 2**20  # of gradients that are in memory a second time
_CLOSE = {torch.float64: 1e-8}
_CLOSE_IN_SINGLE = 1e-4  # relative, of a sample's gradient


def batched_gradients(
    loss: Callable[[dict[str, Tensor], ModelBatch], Tensor],
    parameters: dict[str, Tensor],
    flat: FlatParameters,
    batch: ModelBatch,
) -> Tensor | None:
    """Gradients [B, N] of each sample by ``vmap``; None where it cannot.

    Args:
        loss: mean loss of a batch with given parameters, a scalar.
        parameters: leaves by name, in the order of ``flat``.
        flat: their places in a vector [N].
        batch: its tensors with a first dimension of size B are taken apart.
    """
    parts = batch.tensors_by_sample()
    if parts is None:
        return None
    values = {name: p.detach() for name, p in parameters.items() if p.requires_grad}
    fixed = {name: p.detach() for name, p in parameters.items() if not p.requires_grad}

    def of_one(moving: dict[str, Tensor], *sample: Tensor) -> Tensor:
        return loss({**fixed, **moving}, batch.with_tensors([s.unsqueeze(0) for s in sample]))

    bytes_each = flat.size * flat.dtype.itemsize
    chunk = max(1, _CHUNK_BYTES // max(1, bytes_each))
    try:
        gradients = torch.func.vmap(
            torch.func.grad(of_one), in_dims=(None, *(0 for _ in parts)), chunk_size=chunk
        )(values, *parts)
    except Exception:  # whatever it cannot do is done one by one, where real errors show
        return None
    rows = torch.zeros(batch.samples, flat.size, dtype=flat.dtype, device=flat.device)
    start = 0
    for name, p in parameters.items():
        if name in gradients:
            rows[:, start : start + p.numel()] = gradients[name].flatten(1)
        start += p.numel()
    return rows


def same_gradients(batched: Tensor, alone: Tensor) -> bool:
    """Whether a row [N] of batched gradients is that of the sample by itself, to rounding."""
    close = _CLOSE.get(alone.dtype, _CLOSE_IN_SINGLE)
    scale = float(alone.abs().max())
    return bool((batched - alone).abs().max() <= close * scale + 1e-12) if alone.numel() else True
