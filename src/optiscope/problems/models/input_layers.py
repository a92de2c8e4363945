"""What a model does to images before its first weights: standardise, enlarge, crop.

They are layers of the model, so that data, augmentation and every instrument see images in [0, 1].

Index legend: B images of C channels with H × W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

__all__ = ["CentreCrop", "Standardise", "on_standardised"]


class Standardise(nn.Module):
    """Subtract a mean and divide by a standard deviation per channel of images [B, C, H, W]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> the same shape."""
        return (images - self.mean) / self.std


class CentreCrop(nn.Module):
    """The central square of ``pixels`` × ``pixels``; images of that size pass unchanged."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W], at least that large -> [B, C, pixels, pixels]."""
        top, left = ((side - self.pixels) // 2 for side in images.shape[-2:])
        return images[..., top : top + self.pixels, left : left + self.pixels]


def on_standardised(
    make_network: Callable[[], nn.Module],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    crop: int | None = None,
    enlarge: int | None = None,
) -> Callable[[], nn.Module]:
    """A ``make_model`` that puts the image layers in front of a network.

    Args:
        make_network: builds the network with freshly drawn weights.
        mean: of each channel, for pixels in [0, 1].
        std: standard deviation of each channel.
        crop: side of the central square to use; all pixels when None.
        enlarge: side to scale to, bilinearly; not scaled when None.
    """
    return partial(_in_front, make_network, tuple(mean), tuple(std), crop, enlarge)


def _in_front(
    make_network: Callable[[], nn.Module],
    mean: Sequence[float],
    std: Sequence[float],
    crop: int | None,
    enlarge: int | None,
) -> nn.Module:
    layers: list[nn.Module] = [Standardise(mean, std)]
    if crop is not None:
        layers.insert(0, CentreCrop(crop))
    if enlarge is not None:
        layers.append(nn.Upsample(size=enlarge, mode="bilinear"))
    return nn.Sequential(*layers, make_network())
