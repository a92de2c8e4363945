"""Training data of which each epoch takes a fresh random part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from optiscope.data.samples import Batch, Samples

__all__ = ["RandomParts"]


@dataclass(frozen=True)
class RandomParts:
    """Samples of which an epoch takes ``count``, drawn without replacement, anew for each epoch.

    Short epochs of large data: horizons of a few passes can be told apart in fine steps. Selected
    by index, it is the first ``count`` samples.

    Raises:
        ValueError: there are fewer than ``count`` samples.
    """

    samples: Samples
    count: int

    def __post_init__(self) -> None:
        if not 0 < self.count <= len(self.samples):
            raise ValueError(
                f"expected a part of 1 to {len(self.samples)} samples, got count={self.count}"
            )

    def __len__(self) -> int:
        return self.count

    def select(self, indices: Tensor) -> Batch:
        """Batch of the samples at ``indices`` [B] of the first part."""
        return self.samples.select(indices)

    def batches(self, order: Tensor, generator: torch.Generator) -> Iterator[Batch]:
        """The batches of ``order`` [steps, B], indices into the part that ``generator`` draws.

        The loop seeds the generator anew for each epoch, so that a run resumed within an epoch
        finds the same part.
        """
        drawn = torch.randperm(len(self.samples), generator=generator)[: self.count]
        drawn = drawn.to(order.device)
        for indices in order:
            yield self.samples.select(drawn[indices])

    def to(self, device: torch.device) -> RandomParts:
        """The same samples on ``device``."""
        return replace(self, samples=self.samples.to(device))

    def subset(self, indices: Tensor) -> Samples:
        """The samples at ``indices`` of the first part."""
        return self.samples.subset(indices)
