"""How much faster a batch is augmented as a whole than sample by sample.

The augmentation is that of ``cifar10_3c3d``: pad by 2 and crop, mirror, colours. The loop applies the
same operations to one image at a time, as a data set's transform does. Both run on one thread, in turn,
and the ratio is the median over rounds. Run with ``python benchmarks/augmentation.py``.

Index legend: B samples of 3 x 32 x 32 pixels.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from optiscope.data.augment import colour_jitter, compose, horizontal_flip, pad_and_crop

BATCH = 128
BRIGHTNESS, CONTRAST, SATURATION = (1 - 63 / 255, 1 + 63 / 255), (0.2, 1.8), (0.5, 1.5)


def one_by_one(images: Tensor, generator: torch.Generator) -> Tensor:
    """The augmentation of each image [3, 32, 32] of a batch [B, 3, 32, 32] in a loop."""
    return torch.stack([_augmented(image, generator) for image in images])


def _augmented(image: Tensor, generator: torch.Generator) -> Tensor:
    padded = functional.pad(image, (2, 2, 2, 2))
    top, left = torch.randint(5, (2,), generator=generator).tolist()
    image = padded[:, top : top + 32, left : left + 32]
    if torch.rand((), generator=generator) < 0.5:
        image = image.flip(-1)
    factors = [
        low + (high - low) * share
        for (low, high), share in zip(
            (BRIGHTNESS, CONTRAST, SATURATION),
            torch.rand(3, generator=generator).tolist(),
            strict=True,
        )
    ]
    for kind in torch.randperm(3, generator=generator).tolist():
        factor = factors[kind]
        if kind == 0:
            image = (factor * image).clamp_(0, 1)
            continue
        red, green, blue = image
        grey = 0.2989 * red + 0.587 * green + 0.114 * blue
        target = grey.mean() if kind == 1 else grey
        image = (factor * image).add_((1 - factor) * target).clamp_(0, 1)
    return image


def seconds(
    augment: Callable[[Tensor, torch.Generator], Tensor], images: Tensor, seed: int
) -> float:
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    augment(images, generator)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="time batched against per-sample augmentation")
    parser.add_argument("--rounds", type=int, default=100, help="alternations to take medians of")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    images = torch.rand(BATCH, 3, 32, 32)
    batched = compose(
        pad_and_crop(2), horizontal_flip(), colour_jitter(BRIGHTNESS, CONTRAST, SATURATION)
    )
    times = [
        (seconds(batched, images, seed), seconds(one_by_one, images, seed))
        for seed in range(-3, rounds)
    ][3:]
    whole, alone = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(slow / fast for fast, slow in times)
    low, high = statistics.quantiles((slow / fast for fast, slow in times), n=4)[::2]
    print(
        f"augmentation of {BATCH} images 3 x 32 x 32: whole batch {whole:.2f} ms, one by one "
        f"{alone:.2f} ms, ratio {ratio:.1f} (quartiles {low:.1f} to {high:.1f}); torch "
        f"{torch.__version__}, 1 thread, {platform.machine()}, {rounds} alternations"
    )


if __name__ == "__main__":
    main()
