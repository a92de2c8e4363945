"""Fixed splits of labelled images: training, training-evaluation, validation and test sets.

Index legend: N images, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optiscope.data import load_images
from optiscope.data.samples import Augment, Samples, Splits, TensorSamples
from optiscope.data.splits import fixed_split

__all__ = ["image_splits", "pixels_in_unit_interval", "reconstruct", "split_indices"]

SPLIT_SEED = 42
"""Seed of every problem's split; not the seed of a run."""


def reconstruct(data: Callable[[Any], Splits]) -> Callable[[Any], Splits]:
    """The same splits with each image as its own target instead of its label."""
    return partial(_images_as_targets, data)


def _images_as_targets(data: Callable[[Any], Splits], data_dir: Any) -> Splits:
    splits = data(data_dir)

    def own(samples: Samples) -> TensorSamples:
        assert isinstance(samples, TensorSamples)
        return TensorSamples(samples.inputs, samples.inputs)

    return Splits(own(splits.train), own(splits.train_eval), own(splits.valid), own(splits.test))


def split_indices(
    count: int, valid: int, train: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Validation, training-evaluation and training indices out of ``count``.

    The validation set depends on ``count`` and ``valid`` alone. The training-evaluation indices
    are a random part of the training indices, as many as the validation set where there are enough.
    """
    kept = count - valid if train is None else train
    evaluated = min(valid, kept)
    sizes = (valid, evaluated, kept - evaluated)
    held_out, evaluation, rest = fixed_split(count, sizes, seed=SPLIT_SEED)
    return held_out, evaluation, torch.cat([evaluation, rest]).sort().values


def pixels_in_unit_interval(images: Tensor) -> Tensor:
    """uint8 images [N, C, H, W] as float32 between 0 and 1."""
    return images.to(torch.float32).div_(255.0)


def image_splits(
    dataset: str,
    valid: int,
    *,
    train: int | None = None,
    augment: Augment | None = None,
) -> Callable[[Any], Splits]:
    """A problem's ``data``: the official test set, and a fixed split of the official training set.

    Args:
        dataset: name in ``optiscope data list``.
        valid: images set aside for validation. As many training images, none of them among
            these, evaluate the training loss (all training images where there are fewer).
        train: training images to keep, a fixed random part; all that remain when None.
        augment: acts on training batches.
    """
    return partial(_split, dataset=dataset, valid=valid, train=train, augment=augment)


def _split(
    data_dir: Any,
    *,
    dataset: str,
    valid: int,
    train: int | None,
    augment: Augment | None,
) -> Splits:
    images = load_images(dataset, data_dir)
    held_out, evaluated, trained = split_indices(len(images.train_images), valid, train)

    def learnt(indices: Tensor) -> TensorSamples:
        pixels = pixels_in_unit_interval(images.train_images[indices])
        return TensorSamples(pixels, images.train_labels[indices])

    return Splits(
        train=learnt(trained),
        train_eval=learnt(evaluated),
        valid=learnt(held_out),
        test=TensorSamples(pixels_in_unit_interval(images.test_images), images.test_labels),
        augment=augment,
    )
