"""The fixed split of images: sizes, disjointness, and the same indices on every machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from optiscope import problems
from optiscope.problems.image_splits import split_indices

FINGERPRINTS = ["be3fefe41e7c40c6", "217d1b323a9d9e22", "df3a54f8a71ecdc5"]


def fingerprint(indices: torch.Tensor) -> str:
    return hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("count", "valid", "train", "sizes"),
    [
        (60_000, 10_000, None, (10_000, 10_000, 50_000)),
        (60_000, 10_000, 10_000, (10_000, 10_000, 10_000)),
        (50_000, 10_000, None, (10_000, 10_000, 40_000)),
        (73_257, 26_032, None, (26_032, 26_032, 47_225)),
        (1_497, 300, None, (300, 300, 1_197)),
    ],
)
def test_published_sizes(
    count: int, valid: int, train: int | None, sizes: tuple[int, int, int]
) -> None:
    held_out, evaluated, trained = split_indices(count, valid, train)
    assert (len(held_out), len(evaluated), len(trained)) == sizes
    assert len(trained.unique()) == len(trained)
    assert not set(held_out.tolist()) & set(trained.tolist())
    assert set(evaluated.tolist()) <= set(trained.tolist())
    assert 0 <= int(trained.min()) <= int(trained.max()) < count


def test_the_split_never_changes() -> None:
    """A changed fingerprint changes every result: raise the problems' version with it."""
    held_out, evaluated, trained = split_indices(60_000, 10_000)
    assert [fingerprint(part) for part in (held_out, evaluated, trained)] == FINGERPRINTS
    torch.manual_seed(99)
    assert torch.equal(split_indices(60_000, 10_000)[0], held_out)


def test_a_smaller_training_set_keeps_the_validation_set() -> None:
    whole, part = split_indices(60_000, 10_000), split_indices(60_000, 10_000, 10_000)
    assert torch.equal(whole[0], part[0])
    assert set(part[2].tolist()) <= set(whole[2].tolist())


def test_digits_have_every_class_in_every_split() -> None:
    splits = problems.get("digits_conv").data(None)
    for samples in (splits.train, splits.train_eval, splits.valid, splits.test):
        counts = torch.bincount(samples.targets, minlength=10)
        assert counts.min().item() > 0.05 * len(samples)
        assert samples.inputs.min().item() == 0.0
        assert samples.inputs.max().item() == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("mnist_logreg", (1, 28, 28), (50_000, 10_000, 10_000, 10_000)),
        ("fmnist_2c2d", (1, 28, 28), (50_000, 10_000, 10_000, 10_000)),
        ("fmnist_2c2d_10k", (1, 28, 28), (10_000, 10_000, 10_000, 10_000)),
        ("cifar10_3c3d", (3, 32, 32), (40_000, 10_000, 10_000, 10_000)),
    ],
)
def test_real_images(
    real_data: Path, name: str, shape: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    splits = problems.get(name).data(real_data)
    parts = (splits.train, splits.train_eval, splits.valid, splits.test)
    assert tuple(len(samples) for samples in parts) == sizes
    for samples in parts:
        assert samples.inputs.shape[1:] == shape
        assert samples.inputs.dtype == torch.float32
        assert samples.inputs.min().item() == 0.0
        assert samples.inputs.max().item() == 1.0
        counts = torch.bincount(samples.targets, minlength=10) / len(samples)
        assert counts.min().item() > 0.085


@pytest.mark.slow
def test_the_statistics_are_those_of_cifar10(real_data: Path) -> None:
    """The published mean and deviation are those of all 50,000 training images.

    The tolerances leave room for copies that were compressed again.
    """
    problem = problems.get("cifar10_3c3d")
    splits, standardise = problem.data(real_data), problem.make_model()[0]
    pixels = torch.cat([splits.train.inputs, splits.valid.inputs]).movedim(1, 0).flatten(1).double()
    torch.testing.assert_close(
        pixels.mean(1), standardise.mean.flatten().double(), rtol=0, atol=5e-4
    )
    torch.testing.assert_close(pixels.std(1), standardise.std.flatten().double(), rtol=0, atol=3e-3)
