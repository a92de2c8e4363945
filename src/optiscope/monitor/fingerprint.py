"""Fingerprints of samples: 64 bits a row, equal exactly when the entries looked at are equal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["RowFingerprint"]

ENTRIES = 64
CANDIDATES = 2048


class RowFingerprint:
    """Hash of each row (sample) of a batch, from entries that vary in the first batch.

    Random entries of an image are often constant (its border), so that all samples look alike;
    the entries are therefore chosen by their variance. The hash adds integers, so that it does not
    depend on the order of summation, the batch size or the device.
    """

    def __init__(self) -> None:
        self._chosen: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}
        self.varying = 0

    def rows(self, inputs: Tensor) -> Tensor | None:
        """Fingerprints [B] (int64, on the inputs' device), None if there is nothing to hash."""
        if inputs.ndim == 0 or inputs.shape[0] == 0 or inputs.numel() == 0 or inputs.is_sparse:
            return None
        flat = inputs.detach().reshape(inputs.shape[0], -1)
        key = (flat.shape[1], flat.device)
        chosen = self._chosen.get(key)
        if chosen is None:
            chosen = self._choose(flat)
            self._chosen[key] = chosen
        entries, factors = chosen
        if flat.dtype == torch.float32 and flat.device.type == "cpu":  # the same in fewer calls
            picked = flat.numpy().take(entries.numpy(), 1).view(np.int32).astype(np.int64)
            return torch.from_numpy(picked @ factors.numpy())
        return (_bits(flat.index_select(1, entries)) * factors).sum(1)

    def _choose(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """The entries to look at and the odd factors of the hash."""
        generator = torch.Generator().manual_seed(20261130 + flat.shape[1])
        width = flat.shape[1]
        candidates = torch.randperm(width, generator=generator, device="cpu")[:CANDIDATES]
        looked = flat[:256].index_select(1, candidates.to(flat.device)).to(torch.float64)
        spread = (
            looked.var(0, unbiased=False)
            if len(looked) > 1
            else torch.ones(len(candidates), device=flat.device)
        )
        spread = torch.nan_to_num(spread).cpu()
        varied = (spread > 0.1 * spread.max()).nonzero()[:, 0]  # in random order already
        if len(varied) < ENTRIES:
            varied = spread.argsort(descending=True, stable=True)
        order = varied[:ENTRIES]
        # how much an equal hash says: entries that vary, or values in a sample where all are equal
        self.varying = max(int((spread[order] > 0).sum()), len(looked[0].unique()))
        entries = candidates[order].sort().values.to(flat.device)
        factors = (
            torch.randint(-(2**62), 2**62, (len(entries),), generator=generator, device="cpu") * 2
            + 1
        )
        return entries, factors.to(flat.device)


def _bits(values: Tensor) -> Tensor:
    """The bit patterns of ``values`` as int64, for every dtype."""
    if values.is_complex():
        values = torch.view_as_real(values).sum(-1)
    if values.dtype == torch.float64:
        return values.view(torch.int64)
    if values.dtype == torch.float32:
        return values.contiguous().view(torch.int32).to(torch.int64)
    if values.is_floating_point():
        return values.to(torch.float32).view(torch.int32).to(torch.int64)
    return values.to(torch.int64)
