"""Marginal statistics of targets: the constant prediction that fits them best.

Index legend: N samples, T tokens of a sample, K outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optiscope.data.samples import Samples

__all__ = ["class_counts", "output_bias_of", "training_targets"]

CHUNK = 4096
"""Samples read at a time where the targets are not one tensor."""

EDGE = 1e-3
"""Means this close to 0 or 1 are moved here before the inverse of a sigmoid."""


def training_targets(samples: Samples) -> Tensor:
    """All targets of ``samples``, [N, ...]."""
    for name in ("targets", "labels"):
        held = getattr(samples, name, None)
        if isinstance(held, Tensor) and len(held) == len(samples):
            return held
    chunks = torch.arange(len(samples)).split(CHUNK)
    return torch.cat([samples.select(indices).targets for indices in chunks])


def class_counts(targets: Tensor, classes: int | None = None) -> Tensor:
    """How often each class occurs among integer targets [N] or [N, T]; int64 [K]."""
    return torch.bincount(targets.flatten().cpu(), minlength=classes or 0)


def output_bias_of(
    targets: Samples | Tensor, outputs: int, *, after_sigmoid: bool = False
) -> Tensor:
    """Bias [K] with which zero weights predict the marginal statistics of ``targets``.

    Integer targets are classes, and the bias is the log of their frequencies (a class that does
    not occur counts as half a sample); the mean cross-entropy of this prediction is the entropy
    of the class frequencies. Real targets [N, ...] give their mean, [K].

    Args:
        targets: integers [N] or [N, T], or real values with K values a sample or K channels.
        outputs: K.
        after_sigmoid: the outputs pass a sigmoid, so that its inverse of the mean is returned.

    Raises:
        ValueError: the targets do not fit K outputs.
    """
    values = targets if isinstance(targets, Tensor) else training_targets(targets)
    if not values.is_floating_point():
        counts = class_counts(values, outputs).to(torch.float64)
        if len(counts) != outputs:
            raise ValueError(
                f"output_bias 'marginal' needs an output for each class, got {outputs} outputs "
                f"and class {len(counts) - 1}: leave output_bias out for this problem"
            )
        frequencies = counts.clamp(min=0.5)
        return (frequencies / frequencies.sum()).log()
    mean = values.to(torch.float64).mean(0).flatten().cpu()
    if len(mean) != outputs and values.ndim > 2 and values.shape[1] == outputs:
        mean = mean.view(outputs, -1).mean(1)
    if len(mean) != outputs:
        raise ValueError(
            f"output_bias 'marginal' needs as many outputs as a target has values, got {outputs} "
            f"outputs and targets of shape {tuple(values.shape[1:])}: leave output_bias out"
        )
    return torch.logit(mean.clamp(EDGE, 1 - EDGE)) if after_sigmoid else mean
