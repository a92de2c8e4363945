"""Means over samples that come in batches: the one place where a loss is summed.

Every sample counts once, however the samples are divided: sums are weighted by samples and kept in
float64. Nothing waits for the device before the mean is asked for.

Index legend: B samples in a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SampleSums", "sum_over_samples"]


def sum_over_samples(values: Tensor, samples: int, weight: float | None = None) -> Tensor:
    """Sum of a batch's values over its samples, a scalar in float64.

    Args:
        values: their mean [], or those of each sample [B, ...], which are averaged over all
            dimensions but the first.
        samples: B.
        weight: of the batch, where that is not B.
    """
    weight = samples if weight is None else weight
    wide = values.to("cpu" if values.device.type == "mps" else values.device, torch.float64)
    if values.ndim == 0:
        return weight * wide
    total = (wide if values.ndim == 1 else wide.flatten(1).mean(1)).sum()
    return total if weight == samples else total * (weight / samples)


class SampleSums:
    """Sums of some figures over all batches so far, by name."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, name: str, values: Tensor, samples: int, weight: float | None = None) -> None:
        """Take in a batch; see `sum_over_samples` for the arguments."""
        total = sum_over_samples(values.detach(), samples, weight)
        self._totals[name] = self._totals[name] + total if name in self._totals else total
        weight = samples if weight is None else weight
        self._weights[name] = self._weights.get(name, 0.0) + weight

    def mean(self, name: str) -> float:
        """The mean of a figure over the samples so far."""
        return self._totals[name].item() / self._weights[name]

    def means(self) -> dict[str, float]:
        """The means of all figures, in the order in which they came first."""
        return {name: self.mean(name) for name in self._totals}
