"""Augmentation of whole batches: random crops, flips and colours, drawn for each sample.

Each augmentation is a pure function of images and drawn parameters (`crop`, `flip`, `jitter`) and a
thin `Augment` around it that draws them (`pad_and_crop`, `horizontal_flip`, `colour_jitter`).
Parameters are drawn on the generator's device and moved to the images', so that a CPU generator
draws the same crops, flips and colours wherever the images are. A batch is distributed as its
samples augmented one by one.

Colours and black borders are defined on images in [0, 1]: put `standardise` last.

Index legend: B samples, C channels, H x W pixels, K colour operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from optiscope.data.samples import Augment

__all__ = [
    "Range",
    "colour_jitter",
    "compose",
    "crop",
    "flip",
    "horizontal_flip",
    "jitter",
    "pad_and_crop",
    "standardise",
]

Range = float | tuple[float, float]
"""Interval of factors; a single number ``r`` stands for [max(0, 1 - r), 1 + r]."""

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601, rounded as in torchvision)."""
BRIGHTNESS, CONTRAST, SATURATION = range(3)


def compose(*augments: Augment) -> Augment:
    """One augmentation that applies ``augments`` from left to right."""

    def apply(images: Tensor, generator: Generator) -> Tensor:
        for augment in augments:
            images = augment(images, generator)
        return images

    return apply


def pad_and_crop(padding: int, fill: float = 0.0) -> Augment:
    """Pad each side by ``padding`` pixels of value ``fill`` and cut a random H x W window out.

    All (2·padding + 1)² windows are equally likely for each sample.
    """
    if padding < 0:
        raise ValueError(f"padding must be 0 or more pixels, got {padding}")

    def apply(images: Tensor, generator: Generator) -> Tensor:
        _check_batch(images)
        offsets = torch.randint(
            2 * padding + 1, (2, len(images)), generator=generator, device=generator.device
        ).to(images.device)
        return crop(images, offsets[0], offsets[1], padding, fill)

    return apply


def crop(images: Tensor, top: Tensor, left: Tensor, padding: int, fill: float = 0.0) -> Tensor:
    """Windows [B, C, H, W] of the padded images [B, C, H, W].

    Sample b's window begins at row ``top[b]`` and column ``left[b]`` of the image padded by
    ``padding`` pixels of value ``fill`` on each side; both are int64 [B] in 0..2·padding.
    """
    _, _, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4, value=fill)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def horizontal_flip(probability: float = 0.5) -> Augment:
    """Mirror each sample left to right with ``probability``."""
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability of a flip must lie in [0, 1], got {probability}")

    def apply(images: Tensor, generator: Generator) -> Tensor:
        _check_batch(images)
        draws = torch.rand(len(images), generator=generator, device=generator.device)
        return flip(images, (draws < probability).to(images.device))

    return apply


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Images [B, C, H, W], mirrored left to right where ``flipped`` (bool [B]) is true."""
    turned = images.flip(-1)
    return torch.where(flipped[:, None, None, None], turned, images, out=turned)


def colour_jitter(
    brightness: Range = 0.0, contrast: Range = 0.0, saturation: Range = 0.0
) -> Augment:
    """Blend each sample with black, its mean grey and its grey image, in random order.

    For each sample, a factor of each kind is drawn uniformly from its range, and the order of the
    three operations uniformly from all orders; see `jitter` for what they do. These are the
    definitions of torchvision's ``ColorJitter`` (without hue) on float images in [0, 1].

    Raises:
        ValueError: a range is negative or empty; when applied: images not in floating point, or
            with other than 1 or 3 channels.
    """
    ranges = {
        BRIGHTNESS: _interval("brightness", brightness),
        CONTRAST: _interval("contrast", contrast),
        SATURATION: _interval("saturation", saturation),
    }
    used = {kind: span for kind, span in ranges.items() if span != (1.0, 1.0)}

    def apply(images: Tensor, generator: Generator) -> Tensor:
        _check_colours(images)
        count, device = len(images), generator.device
        draws = torch.rand(2, count, len(used), generator=generator, device=device)
        low, high = torch.tensor(list(used.values()), device=device).reshape(-1, 2).unbind(1)
        factors = low + (high - low) * draws[0]
        order = draws[1].argsort(1)
        kinds = torch.tensor(list(used), dtype=torch.int64, device=device)[order]
        return jitter(
            images,
            kinds.to(images.device),
            factors.gather(1, order).to(images.device, images.dtype),
        )

    return apply


def jitter(images: Tensor, kinds: Tensor, factors: Tensor) -> Tensor:
    """Images [B, C, H, W] in [0, 1] after K colour operations on each sample.

    Operation k on sample b is ``x <- clamp(f·x + (1 - f)·t, 0, 1)`` with ``f = factors[b, k]`` and
    a target t by ``kinds[b, k]``: black for `BRIGHTNESS`, the mean of the grey image for
    `CONTRAST`, the grey image for `SATURATION`. Grey is the sum of the channels, as they are at
    that moment, weighted by `LUMA`; an image of one channel is its own grey image.

    Each operation is affine in a pixel's channels, with one matrix per sample: a batched product
    of [C, C] with [C, H·W], whatever mixture of kinds is in the batch.

    Shapes: kinds int64 [B, K], factors [B, K].
    """
    channels = images.shape[1]
    luma = images.new_tensor(LUMA if channels == 3 else (1.0,))
    identity = torch.eye(channels, dtype=images.dtype, device=images.device)
    grey = torch.where(kinds == SATURATION, 1 - factors, 0).T
    mean = torch.where(kinds == CONTRAST, 1 - factors, 0).T
    mixing = factors.T[..., None, None] * identity + grey[..., None, None] * luma  # [K, B, C, C]
    pixels = images.flatten(2)
    spare = [torch.empty_like(pixels) for _ in range(min(2, len(mixing)))]  # fewer fresh pages
    for k in range(len(mixing)):
        shift = mean[k] * (pixels.mean(2) @ luma)
        pixels = torch.baddbmm(shift[:, None, None], mixing[k], pixels, out=spare[k % 2])
        pixels.clamp_(0, 1)
    return pixels.view(images.shape)


def standardise(mean: Sequence[float], std: Sequence[float]) -> Augment:
    """Subtract each channel's ``mean`` and divide by its ``std``; draws nothing.

    Raises:
        ValueError: lengths differ or a std is not positive; when applied: images with another
            number of channels.
    """
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise ValueError(
            f"expected one mean and one positive std per channel, got {list(mean)} and {list(std)}"
        )

    def apply(images: Tensor, generator: Generator | None = None) -> Tensor:
        if images.shape[1] != len(mean):
            raise ValueError(
                f"expected images of {len(mean)} channels, got shape {tuple(images.shape)}"
            )
        shift, scale = (images.new_tensor(v)[:, None, None] for v in (mean, std))
        return (images - shift) / scale

    return apply


def _interval(name: str, factors: Range) -> tuple[float, float]:
    if isinstance(factors, tuple):
        low, high = factors
    else:
        low, high = max(0.0, 1.0 - factors), 1.0 + factors
    if not 0.0 <= low <= high:
        raise ValueError(
            f"{name} must be a number of 0 or more, or (low, high) with 0 <= low <= high, "
            f"got {factors}"
        )
    return low, high


def _check_batch(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(
            f"expected a batch of images [B, C, H, W], got shape {tuple(images.shape)}"
        )


def _check_colours(images: Tensor) -> None:
    _check_batch(images)
    if not images.is_floating_point() or images.shape[1] not in (1, 3):
        raise ValueError(
            "expected float images in [0, 1] with 1 or 3 channels, got "
            f"{str(images.dtype).removeprefix('torch.')} and {images.shape[1]} channels: divide "
            "bytes by 255 first"
        )
