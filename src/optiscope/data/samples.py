"""Datasets as tensors: a batch is an index selection.

Index legend: N samples in a split, B samples in a batch, ... the shape of one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Augment", "Batch", "Samples", "Splits", "TensorSamples", "TextWindows"]

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Maps a whole batch of inputs [B, ...] to augmented inputs of the same shape."""


class Batch(NamedTuple):
    """Inputs [B, ...] and targets [B, ...] of B samples."""

    inputs: Tensor
    targets: Tensor


class Samples(Protocol):
    """N samples held as tensors on one device."""

    def __len__(self) -> int: ...

    def select(self, indices: Tensor) -> Batch:
        """Batch of the samples at ``indices`` [B] (int64, on the samples' device)."""
        ...

    def to(self, device: torch.device) -> Samples:
        """The same samples on ``device``."""
        ...

    def subset(self, indices: Tensor) -> Samples:
        """The samples at ``indices``, as samples of their own."""
        ...


@dataclass(frozen=True)
class TensorSamples:
    """Paired tensors: inputs [N, ...] and targets [N, ...]."""

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(
                f"expected as many targets as inputs, got {len(self.inputs)} inputs "
                f"and {len(self.targets)} targets"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def select(self, indices: Tensor) -> Batch:
        """Batch of the samples at ``indices`` [B]."""
        return Batch(self.inputs.index_select(0, indices), self.targets.index_select(0, indices))

    def to(self, device: torch.device) -> TensorSamples:
        """The same samples on ``device``."""
        return TensorSamples(self.inputs.to(device), self.targets.to(device))

    def subset(self, indices: Tensor) -> TensorSamples:
        """The samples at ``indices``, as samples of their own."""
        return TensorSamples(*self.select(indices))


@dataclass(frozen=True)
class TextWindows:
    """Windows of ``length`` tokens and the same windows one token later.

    ``tokens`` [T] is one int64 stream; ``starts`` [N] the first position of each window.
    """

    tokens: Tensor
    starts: Tensor
    length: int

    def __post_init__(self) -> None:
        if len(self.starts) and int(self.starts.max()) + self.length + 1 > len(self.tokens):
            raise ValueError(
                f"a window of {self.length} tokens and its target reach past the end of "
                f"{len(self.tokens)} tokens: drop the last start"
            )

    def __len__(self) -> int:
        return len(self.starts)

    def select(self, indices: Tensor) -> Batch:
        """Inputs [B, length] and targets [B, length]."""
        offsets = torch.arange(self.length + 1, device=self.tokens.device)
        window = self.tokens[self.starts[indices].unsqueeze(1) + offsets]
        return Batch(window[:, :-1], window[:, 1:])

    def to(self, device: torch.device) -> TextWindows:
        """The same windows on ``device``."""
        return replace(self, tokens=self.tokens.to(device), starts=self.starts.to(device))

    def subset(self, indices: Tensor) -> TextWindows:
        """The windows at ``indices``, over the same stream."""
        return replace(self, starts=self.starts[indices])


@dataclass(frozen=True)
class Splits:
    """Fixed splits of a problem's data.

    ``train`` is what is trained on; ``train_eval`` the part of it on which the training loss is
    evaluated, without augmentation; ``valid`` and ``test`` are disjoint from both. ``augment``
    acts on training batches only.
    """

    train: Samples
    train_eval: Samples
    valid: Samples
    test: Samples
    augment: Augment | None = None

    def to(self, device: torch.device) -> Splits:
        """The same splits on ``device``."""
        return replace(
            self,
            train=self.train.to(device),
            train_eval=self.train_eval.to(device),
            valid=self.valid.to(device),
            test=self.test.to(device),
        )

    def evaluation(self) -> dict[str, Samples]:
        """The evaluation sets by the name they have in records."""
        return {"train": self.train_eval, "valid": self.valid, "test": self.test}
