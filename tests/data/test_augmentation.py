"""Batched augmentation against the same operations on one image at a time.

Index legend: B samples, C channels, H x W pixels.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from file_writers import pixels
from per_sample import adjust, cut, random_cut, random_jitter, random_mirror
from PIL import Image, ImageEnhance
from scipy import stats
from torch import Tensor

from optiscope.data.augment import (
    BRIGHTNESS,
    CONTRAST,
    SATURATION,
    colour_jitter,
    compose,
    crop,
    flip,
    horizontal_flip,
    jitter,
    pad_and_crop,
    standardise,
)

DRAWS = 4000
ENOUGH = 1e-3
"""Least p-value; the draws are seeded, so a passing test passes for ever."""


def images_of(count: int, channels: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(pixels(count, channels, 8, 6)).to(dtype) / 255


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("fill", [0.0, 0.5])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_windows_given_their_corners(padding: int, fill: float) -> None:
    images = images_of(40)
    top, left = torch.randint(2 * padding + 1, (2, 40))
    found = crop(images, top, left, padding, fill)
    for b in range(40):
        expected = cut(images[b], int(top[b]), int(left[b]), padding, fill)
        assert torch.equal(found[b], expected)


def test_flips_given_which() -> None:
    images, flipped = images_of(10), torch.rand(10) < 0.5
    expected = [one.flip(-1) if which else one for one, which in zip(images, flipped, strict=True)]
    assert torch.equal(flip(images, flipped), torch.stack(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_given_factors_and_order(channels: int, dtype: torch.dtype) -> None:
    images = images_of(60, channels, dtype)
    orders = list(itertools.permutations((BRIGHTNESS, CONTRAST, SATURATION)))
    kinds = torch.tensor([orders[b % 6] for b in range(60)])
    factors = torch.rand(60, 3, dtype=dtype) * 2
    before = images.clone()
    found = jitter(images, kinds, factors)
    assert torch.equal(images, before)
    for b in range(60):
        expected = images[b]
        for kind, factor in zip(kinds[b].tolist(), factors[b].tolist(), strict=True):
            expected = adjust(expected, kind, factor)
        torch.testing.assert_close(found[b], expected, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("factor", [0.3, 0.8, 1.0, 1.6])
@pytest.mark.parametrize(
    ("kind", "enhance"),
    [
        (BRIGHTNESS, ImageEnhance.Brightness),
        (CONTRAST, ImageEnhance.Contrast),
        (SATURATION, ImageEnhance.Color),
    ],
)
def test_colours_are_those_of_pillow_up_to_its_rounding(
    kind: int, enhance: type[ImageEnhance.Brightness], factor: float
) -> None:
    values = pixels(3, 16, 16)
    ours = jitter(
        torch.from_numpy(values)[None].double() / 255,
        torch.tensor([[kind]]),
        torch.tensor([[factor]], dtype=torch.float64),
    )
    theirs = np.asarray(enhance(Image.fromarray(values.transpose(1, 2, 0))).enhance(factor))
    difference = ours[0].numpy() * 255 - theirs.transpose(2, 0, 1)
    assert np.abs(difference).max() < 2.0  # Pillow rounds grey, its mean, and the result


def test_all_windows_are_equally_likely_and_independent_of_the_sample() -> None:
    image = torch.arange(48.0).reshape(1, 1, 8, 6) + 1
    windows = {
        tuple(cut(image[0], top, left, 2).flatten().tolist()): (top, left)
        for top in range(5)
        for left in range(5)
    }
    found = pad_and_crop(2)(image.expand(DRAWS, -1, -1, -1), generator())
    corners = [windows[tuple(one.flatten().tolist())] for one in found]
    counts = [corners.count(corner) for corner in windows.values()]
    assert stats.chisquare(counts).pvalue > ENOUGH
    tops, lefts = np.array(corners).T
    table = np.histogram2d(tops[:-1], lefts[1:], bins=5)[0]
    assert stats.chi2_contingency(table).pvalue > ENOUGH


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_flips_are_as_frequent_as_asked(probability: float) -> None:
    image = torch.arange(6.0).reshape(1, 1, 1, 6)
    found = horizontal_flip(probability)(image.expand(DRAWS, -1, -1, -1), generator())
    flipped = int((found[:, 0, 0, 0] == 5).sum())
    if probability in (0.0, 1.0):
        assert flipped == probability * DRAWS
    else:
        assert stats.binomtest(flipped, DRAWS, probability).pvalue > ENOUGH


def test_factors_are_uniform_in_their_interval() -> None:
    grey = torch.full((DRAWS, 3, 2, 2), 0.25)
    for given, (low, high) in {0.5: (0.5, 1.5), (0.2, 1.8): (0.2, 1.8), 2.0: (0.0, 3.0)}.items():
        factors = colour_jitter(brightness=given)(grey, generator())[:, 0, 0, 0] / 0.25
        test = stats.kstest(factors.numpy(), "uniform", args=(low, high - low))
        assert test.pvalue > ENOUGH


def test_all_orders_are_equally_likely() -> None:
    image = images_of(1, dtype=torch.float64)
    fixed = {BRIGHTNESS: 1.7, CONTRAST: 0.4, SATURATION: 1.9}
    results = []
    for order in itertools.permutations(fixed):
        one = image[0]
        for kind in order:
            one = adjust(one, kind, fixed[kind])
        results.append(one)
    augment = colour_jitter((1.7, 1.7), (0.4, 0.4), (1.9, 1.9))
    found = augment(image.expand(DRAWS, -1, -1, -1), generator())
    distances = torch.stack([(found - one).abs().amax((1, 2, 3)) for one in results])
    assert (distances.sort(0).values[0] < 1e-6).all()
    assert (distances.sort(0).values[1] > 1e-3).all()
    counts = torch.bincount(distances.argmin(0), minlength=6)
    assert stats.chisquare(counts.numpy()).pvalue > ENOUGH


def test_a_batch_is_distributed_as_its_samples_one_by_one() -> None:
    image = images_of(1)
    intervals = {BRIGHTNESS: (0.75, 1.25), CONTRAST: (0.2, 1.8), SATURATION: (0.5, 1.5)}
    batched = compose(
        pad_and_crop(2), horizontal_flip(), colour_jitter(0.25, (0.2, 1.8), (0.5, 1.5))
    )(image.expand(DRAWS, -1, -1, -1), generator(3))
    draws, cutting, colouring = generator(4), random_cut(2), random_jitter(intervals)
    alone = torch.stack(
        [
            colouring(random_mirror(cutting(image[0], draws), draws), draws)
            for _ in range(DRAWS // 4)
        ]
    )
    statistics = {
        "mean": lambda x: x.mean((1, 2, 3)),
        "spread": lambda x: x.std((1, 2, 3)),
        "saturation": lambda x: (x.amax(1) - x.amin(1)).mean((1, 2)),
        "left minus right": lambda x: x[..., :3].mean((1, 2, 3)) - x[..., 3:].mean((1, 2, 3)),
        "top minus bottom": lambda x: x[:, :, :4].mean((1, 2, 3)) - x[:, :, 4:].mean((1, 2, 3)),
        "one pixel": lambda x: x[:, 1, 3, 2],
    }
    for name, statistic in statistics.items():
        test = stats.ks_2samp(statistic(batched).numpy(), statistic(alone).numpy())
        assert test.pvalue > ENOUGH, name


def test_one_seed_gives_one_batch() -> None:
    images = images_of(16)
    augment = compose(pad_and_crop(1), horizontal_flip(), colour_jitter(0.1, 0.2, 0.3))
    assert torch.equal(augment(images, generator(5)), augment(images, generator(5)))
    assert not torch.equal(augment(images, generator(5)), augment(images, generator(6)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cpu_generator_draws_the_same_for_images_elsewhere() -> None:
    images = images_of(16)
    augment = compose(pad_and_crop(1), horizontal_flip(), colour_jitter(0.1, 0.2, 0.3))
    here, there = augment(images, generator(5)), augment(images.cuda(), generator(5))
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-5)


def test_each_sample_is_drawn_for_itself() -> None:
    alike = images_of(1).expand(16, -1, -1, -1)
    for augment in (pad_and_crop(3), horizontal_flip(), colour_jitter(0.5)):
        assert len(augment(alike, generator()).unique(dim=0)) > 1


def test_nothing_asked_changes_nothing() -> None:
    images = images_of(4)
    for augment in (compose(), pad_and_crop(0), horizontal_flip(0.0), colour_jitter()):
        assert torch.equal(augment(images, generator()), images)
    empty = images[:0]
    augment = compose(pad_and_crop(2), horizontal_flip(), colour_jitter(0.1, 0.2, 0.3))
    assert augment(empty, generator()).shape == (0, 3, 8, 6)


def test_bytes_are_cropped_and_flipped_as_bytes() -> None:
    images = torch.from_numpy(pixels(4, 3, 8, 6))
    found = compose(pad_and_crop(2), horizontal_flip())(images, generator())
    assert found.dtype == torch.uint8


def test_standardised_images_have_zero_mean_and_unit_spread() -> None:
    images = images_of(50)
    mean, std = images.mean((0, 2, 3)).tolist(), images.std((0, 2, 3)).tolist()
    found = standardise(mean, std)(images, generator())
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-5)


def test_composition_goes_from_left_to_right() -> None:
    images = images_of(3)
    found = compose(standardise([0.5] * 3, [0.5] * 3), pad_and_crop(1, fill=9.0))(
        images, generator(2)
    )
    again = pad_and_crop(1, fill=9.0)((images - 0.5) / 0.5, generator(2))
    assert torch.equal(found, again)


def test_errors_say_what_was_expected() -> None:
    draws = generator()
    with pytest.raises(ValueError, match="padding must be 0 or more pixels, got -1"):
        pad_and_crop(-1)
    with pytest.raises(ValueError, match=r"probability of a flip must lie in \[0, 1\], got 1.5"):
        horizontal_flip(1.5)
    for bad in (-0.1, (0.5, 0.2), (-1.0, 2.0), float("nan")):
        with pytest.raises(ValueError, match="contrast must be a number of 0 or more"):
            colour_jitter(contrast=bad)
    with pytest.raises(ValueError, match="one mean and one positive std per channel"):
        standardise([0.5], [0.0])
    with pytest.raises(ValueError, match="one mean and one positive std per channel"):
        standardise([0.5, 0.5], [1.0])
    with pytest.raises(
        ValueError, match=r"expected images of 1 channels, got shape \(2, 3, 8, 6\)"
    ):
        standardise([0.5], [1.0])(images_of(2), draws)
    for augment in (pad_and_crop(1), horizontal_flip(), colour_jitter(0.1)):
        with pytest.raises(ValueError, match=r"expected a batch of images \[B, C, H, W\]"):
            augment(images_of(1)[0], draws)
    with pytest.raises(ValueError, match=r"uint8 and 3 channels: divide bytes by 255 first"):
        colour_jitter(0.1)(torch.from_numpy(pixels(2, 3, 8, 6)), draws)
    with pytest.raises(ValueError, match=r"with 1 or 3 channels, got float32 and 2 channels"):
        colour_jitter(0.1)(images_of(2, 2), draws)
