"""Margins on real images: what `docs/check.md` says, with room for another processor."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from optiscope.data import MissingData, load_images
from optiscope.doctor.augmentation import Augmenter, broken_labels
from optiscope.doctor.overlap import near_overlap

pytestmark = pytest.mark.slow


@functools.cache
def images(name: str) -> tuple[Tensor, Tensor, Tensor]:
    try:
        data = load_images(name)
    except MissingData as error:
        pytest.skip(str(error))
    return data.train_images.float() / 255, data.train_labels, data.test_images.float() / 255


def turned(degrees: float) -> Any:
    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        angle = (2 * torch.rand(len(x), generator=generator) - 1) * degrees * math.pi / 180
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        turns = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
        grid = functional.affine_grid(turns, list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, align_corners=False)

    return augment


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    padded = functional.pad(x, (2, 2, 2, 2))
    at = torch.randint(5, (len(x), 2), generator=generator)
    rows = torch.arange(28)[None] + at[:, :1]
    columns = torch.arange(28)[None] + at[:, 1:]
    return padded[torch.arange(len(x))[:, None, None], 0, rows[:, :, None], columns[:, None]][
        :, None
    ]


def mirrored(x: Tensor, generator: torch.Generator) -> Tensor:
    flip = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], x.flip(-1), x)


@pytest.mark.parametrize(
    ("name", "augment", "low", "high"),
    [
        ("mnist", turned(180), 6.0, math.inf),
        ("mnist", turned(15), -math.inf, 2.0),
        ("mnist", turned(30), -math.inf, 2.0),
        ("mnist", shifted, -math.inf, 2.0),
        ("mnist", mirrored, 6.0, math.inf),
        ("fashion_mnist", turned(30), -math.inf, 2.0),
        ("fashion_mnist", shifted, -math.inf, 2.0),
        ("fashion_mnist", mirrored, -math.inf, 2.0),
    ],
)
def test_margins_of_augmentations(name: str, augment: Any, low: float, high: float) -> None:
    x, y, _ = images(name)
    result = broken_labels(x, y, Augmenter(augment, x[:4]), seconds=8)
    assert low <= result.pairs[0].z <= high, result.pairs[0]
    if low == 6.0 and augment is not mirrored:
        assert (result.pairs[0].first, result.pairs[0].second) == (6, 9)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_margins_of_near_copies(name: str) -> None:
    train, _, test = images(name)
    clean = near_overlap(test, train, seconds=6)
    assert clean is not None
    assert not clean.leaked
    leaked = test.clone()
    leaked[:500] = train[:500].flip(-1)
    result = near_overlap(leaked, train, seconds=6)
    assert result is not None
    assert result.leaked
    assert result.z > 8
    assert "mirrored" in result.kinds
