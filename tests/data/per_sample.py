"""Augmentation of one image at a time, by the definitions of torchvision's transforms.

Slow and obvious: the oracle of the batched one. Index legend: C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from optiscope.data.augment import BRIGHTNESS, CONTRAST, SATURATION

Interval = tuple[float, float]


def grey_of(image: Tensor) -> Tensor:
    """Grey image [1, H, W] of an image [C, H, W]."""
    if image.shape[0] == 1:
        return image
    red, green, blue = image
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[None]


def blend(image: Tensor, other: Tensor, factor: float) -> Tensor:
    return (factor * image + (1.0 - factor) * other).clamp(0.0, 1.0)


def adjust(image: Tensor, kind: int, factor: float) -> Tensor:
    """One colour operation on an image [C, H, W]."""
    if kind == BRIGHTNESS:
        return blend(image, torch.zeros_like(image), factor)
    if kind == CONTRAST:
        return blend(image, grey_of(image).mean(), factor)
    assert kind == SATURATION
    return blend(image, grey_of(image), factor)


def cut(image: Tensor, top: int, left: int, padding: int, fill: float = 0.0) -> Tensor:
    """The window of the padded image [C, H, W] that begins at (top, left)."""
    channels, height, width = image.shape
    padded = image.new_full((channels, height + 2 * padding, width + 2 * padding), fill)
    padded[:, padding : padding + height, padding : padding + width] = image
    return padded[:, top : top + height, left : left + width]


def random_jitter(intervals: dict[int, Interval]) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Random colour operations on one image, drawn as torchvision's ``ColorJitter`` draws them."""

    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        factors = {
            kind: float(torch.empty(1).uniform_(*interval, generator=generator))
            for kind, interval in intervals.items()
        }
        kinds = list(intervals)
        for place in torch.randperm(len(kinds), generator=generator).tolist():
            image = adjust(image, kinds[place], factors[kinds[place]])
        return image

    return apply


def random_cut(padding: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    def apply(image: Tensor, generator: torch.Generator) -> Tensor:
        top, left = torch.randint(2 * padding + 1, (2,), generator=generator).tolist()
        return cut(image, top, left, padding)

    return apply


def random_mirror(image: Tensor, generator: torch.Generator) -> Tensor:
    return image.flip(-1) if float(torch.rand(1, generator=generator)) < 0.5 else image
