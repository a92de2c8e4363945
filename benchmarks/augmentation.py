"""How much faster a batch is augmented as a whole than sample by sample.

The augmentation is that of ``cifar10_3c3d``: pad by 2 and crop, mirror, colours. The loop applies
the same operations to one image at a time, as a data set's transform does. Both run on one thread,
in turn, and the ratio is the median over rounds; processor time is shown beside wall time because
it does not count what other processes take. Freed memory is reused, as in every process that
trains (``optiscope.train.device``); ``--as-it-comes`` leaves the allocator alone. Run with
``python benchmarks/augmentation.py``.

Index legend: B samples of 3 x 32 x 32 pixels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from optiscope.data.augment import colour_jitter, compose, horizontal_flip, pad_and_crop
from optiscope.train.device import reuse_freed_memory

BATCH = 128
WARM_UP = 5
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


Times = tuple[float, float]
"""Wall and processor seconds."""


def time_of(
    augment: Callable[[Tensor, torch.Generator], Tensor], images: Tensor, seed: int
) -> Times:
    generator = torch.Generator().manual_seed(seed)
    wall, processor = time.perf_counter(), time.thread_time()
    augment(images, generator)
    return time.perf_counter() - wall, time.thread_time() - processor


def summary(clock: str, whole: Sequence[float], alone: Sequence[float]) -> str:
    ratios = [slow / fast for fast, slow in zip(whole, alone, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return (
        f"{clock} {1e3 * statistics.median(whole):.2f} ms against "
        f"{1e3 * statistics.median(alone):.2f} ms, ratio {middle:.1f} (quartiles {low:.1f} to "
        f"{high:.1f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="time batched against per-sample augmentation")
    parser.add_argument("--rounds", type=int, default=100, help="alternations to take medians of")
    parser.add_argument(
        "--as-it-comes", action="store_true", help="leave the memory allocator as it comes"
    )
    arguments = parser.parse_args()
    rounds = arguments.rounds
    if not arguments.as_it_comes:
        reuse_freed_memory()
    torch.set_num_threads(1)
    images = torch.rand(BATCH, 3, 32, 32)
    batched = compose(
        pad_and_crop(2), horizontal_flip(), colour_jitter(BRIGHTNESS, CONTRAST, SATURATION)
    )
    pairs = [
        (time_of(batched, images, seed), time_of(one_by_one, images, seed))
        for seed in range(rounds + WARM_UP)
    ][WARM_UP:]
    clocks = [
        summary(clock, [whole[n] for whole, _ in pairs], [alone[n] for _, alone in pairs])
        for n, clock in enumerate(("wall", "processor"))
    ]
    print(
        f"augmenting {BATCH} images of 3 x 32 x 32, whole batch against one by one: "
        f"{'; '.join(clocks)}; torch {torch.__version__}, 1 thread, {rounds} alternations"
    )


if __name__ == "__main__":
    main()
