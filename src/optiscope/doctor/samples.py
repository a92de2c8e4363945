"""The first samples of a watched run, as the network gets them: pictures for the page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from optiscope.doctor.context import Picture, picture_of
from optiscope.monitor.events import Forward

__all__ = ["Samples", "first_samples"]

COUNT = 12


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs [n, ...] of one training batch and their labels [n], where they are known."""

    inputs: Tensor
    labels: tuple[str, ...] | None = None

    def with_labels(self, target: Tensor | None) -> Samples:
        """The same with labels; without them where ``target`` [B] has none for each sample."""
        if target is None or target.ndim != 1 or len(target) < len(self.inputs):
            return self
        values = target.detach()[: len(self.inputs)].tolist()
        return replace(self, labels=tuple(f"{v:.4g}" for v in values))

    @cached_property
    def pictures(self) -> list[dict[str, Any]]:
        """Address of each picture and its caption; empty where samples cannot be drawn."""
        pngs = [picture_of(sample) for sample in self.inputs]
        known = tuple(png for png in pngs if png is not None)
        if len(known) < len(pngs):
            return []
        captions = self.labels or ("",) * len(known)
        picture = Picture("", known, captions)
        return [
            {"uri": uri, "caption": text}
            for uri, text in zip(picture.data_uris(), captions, strict=True)
        ]


def first_samples(forward: Forward) -> Samples | None:
    """Copies of the first samples of a batch of images [B, C, H, W]; None for other inputs."""
    x = forward.input
    if x is None or x.ndim != 4 or x.shape[1] not in (1, 3, 4) or max(x.shape[2:]) > 512:
        return None
    return Samples(x.detach()[:COUNT].float().cpu().clone())
