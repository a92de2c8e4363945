"""Image data sets as tensors of bytes.

Index legend: N samples in a split, C channels, H x W pixels.
"""

from __future__ import annotations

import gzip
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optiscope.data import cifar
from optiscope.data.bytes_of import LARGEST
from optiscope.data.dataset import Dataset, Digest
from optiscope.data.decoded_cache import decoded
from optiscope.data.errors import BadFile
from optiscope.data.idx import read_idx
from optiscope.data.isolated import read_isolated
from optiscope.data.located import Located, locate_files
from optiscope.data.parquet_images import READER_VERSION
from optiscope.data.provenance import compare, compare_all
from optiscope.data.svhn import read_svhn

__all__ = ["ImageData", "LabelledImages", "read_digits", "read_images"]

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]
"""Training images, training labels, test images, test labels."""


@dataclass(frozen=True)
class LabelledImages:
    """One set of images uint8 [N, C, H, W] with labels int64 [N], and the classes' names."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]


@dataclass(frozen=True)
class ImageData:
    """Training and test images uint8 [N, C, H, W] with labels int64 [N], and the classes' names."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]


def read_images(dataset: Dataset, data_dir: str | Path | None = None) -> ImageData:
    """Training and test images of ``dataset``, from any of its layouts.

    Files that are not the published ones are told of; see `optiscope.data.provenance`.

    Raises:
        ValueError: ``dataset`` has no fixed shape and counts.
        MissingData: the data set is not in the data folder.
        BadFile: a file is damaged, or counts, shape or labels are not those of the data set.
    """
    if dataset.counts is None or dataset.shape is None:
        raise ValueError(f"data set {dataset.name!r} has no training and test images of one shape")
    located = locate_files(dataset, data_dir)
    arrays = _READERS[located.layout.format](located, dataset)
    _check(arrays, located, dataset)
    train_images, train_labels, test_images, test_labels = map(torch.from_numpy, arrays)
    return ImageData(train_images, train_labels, test_images, test_labels, dataset.classes)


def read_digits(dataset: Dataset) -> LabelledImages:
    """The digits of scikit-learn: images uint8 [1797, 1, 8, 8] of 0..16, labels int64 [1797]."""
    table = _digits_table()
    images = torch.from_numpy(table[:, :64].astype(np.uint8)).view(-1, 1, 8, 8)
    labels = torch.from_numpy(table[:, 64].astype(np.int64))
    return LabelledImages(images, labels, dataset.classes)


def _digits_table() -> NDArray[np.float64]:
    """Pixels and label of each digit, [1797, 65].

    Read from scikit-learn's own file where it is in its usual place: importing scikit-learn takes
    longer than many a run on these images.
    """
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            with gzip.open(path, "rt", encoding="ascii") as stream:
                return np.loadtxt(stream, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target])


def _most_bytes(dataset: Dataset) -> int:
    """Bytes of pixels that one file of the data set may hold: those of its larger split."""
    return max(dataset.counts or (0,)) * math.prod(dataset.shape or ())


def _read_idx(located: Located, dataset: Dataset) -> Arrays:
    most = 2 * _most_bytes(dataset)  # twice, so that a wrong count is told by number

    parts = {part.role: part for part in located.layout.parts}

    def read(role: str, ndim: int) -> NDArray[np.uint8]:
        path, state = located.files[role][0], hashlib.sha256()
        array = read_idx(path, ndim, most, state)  # hashed as it is unpacked, which takes longer
        compare(parts[role], path, Digest("sha256", state.hexdigest()))
        return array

    return (
        read("train_images", 3)[:, None].copy(),
        read("train_labels", 1).astype(np.int64),
        read("test_images", 3)[:, None].copy(),
        read("test_labels", 1).astype(np.int64),
    )


def _apart(reader: str, located: Located, dataset: Dataset, **arguments: object) -> Arrays:
    """What a reader makes of files that nobody vouches for, in a process of its own."""
    *train, test = located.paths
    shape, counts = dataset.shape or (), dataset.counts or ()
    arrays = read_isolated(
        reader,
        {"train": train, "test": [test]},
        arguments,
        memory=6 * sum(counts) * math.prod(shape) + LARGEST,
    )
    return (
        arrays["train_images"].astype(np.uint8, copy=False),
        arrays["train_labels"].astype(np.int64, copy=False),
        arrays["test_images"].astype(np.uint8, copy=False),
        arrays["test_labels"].astype(np.int64, copy=False),
    )


def _read_cifar_pickle(located: Located, dataset: Dataset) -> Arrays:
    if compare_all(located):
        return _batches(located, dataset)
    return _apart("cifar_batches", located, dataset, label_bytes=_label_bytes(dataset))


def _read_cifar(located: Located, dataset: Dataset) -> Arrays:
    compare_all(located)
    return _batches(located, dataset)


def _batches(located: Located, dataset: Dataset) -> Arrays:
    *train, test = located.paths
    label_bytes = _label_bytes(dataset)
    return *cifar.read_folder(train, label_bytes), *cifar.read_folder([test], label_bytes)


def _read_cifar_archive(located: Located, dataset: Dataset) -> Arrays:
    compare_all(located)
    path = located.paths[0]
    form = "cifar_binary" if "binary" in path.name else "cifar_pickle"
    layout = next(layout for layout in dataset.layouts if layout.format == form)
    *train, test = [part.role for part in layout.parts]
    splits = cifar.read_archive(path, [train, [test]], _label_bytes(dataset))
    return *splits[0], *splits[1]


def _label_bytes(dataset: Dataset) -> int:
    return 2 if dataset.name == "cifar100" else 1


def _read_matlab(located: Located, dataset: Dataset) -> Arrays:
    if not compare_all(located):
        return _apart("matlab", located, dataset)
    return *read_svhn(located.files["train"][0]), *read_svhn(located.files["test"][0])


def _read_parquet(located: Located, dataset: Dataset) -> Arrays:
    compare_all(located)
    shape = dataset.shape
    assert shape is not None

    counts = dict(zip(("train", "test"), dataset.counts or (), strict=True))

    def decode() -> dict[str, NDArray[np.generic]]:
        return read_isolated(
            "parquet_images",
            {split: located.files[split] for split in counts},
            {"shape": shape, "most_rows": {split: 2 * n for split, n in counts.items()}},
            memory=6 * sum(counts.values()) * math.prod(shape) + LARGEST,
        )

    arrays = decoded(f"{dataset.name}-parquet-{READER_VERSION}", located.paths, decode)
    return (
        arrays["train_images"].astype(np.uint8, copy=False),
        arrays["train_labels"].astype(np.int64, copy=False),
        arrays["test_images"].astype(np.uint8, copy=False),
        arrays["test_labels"].astype(np.int64, copy=False),
    )


_READERS: dict[str, Callable[[Located, Dataset], Arrays]] = {
    "idx": _read_idx,
    "cifar_binary": _read_cifar,
    "cifar_pickle": _read_cifar_pickle,
    "cifar_archive": _read_cifar_archive,
    "matlab": _read_matlab,
    "parquet": _read_parquet,
}


def _check(arrays: Arrays, located: Located, dataset: Dataset) -> None:
    assert dataset.counts is not None
    where = located.paths[0].parent
    remedy = f"fetch it again with `optiscope data fetch {dataset.name}`"
    for split, images, labels, count in (
        ("training", arrays[0], arrays[1], dataset.counts[0]),
        ("test", arrays[2], arrays[3], dataset.counts[1]),
    ):
        if images.shape != (count, *(dataset.shape or ())) or labels.shape != (count,):
            raise BadFile(
                f"{dataset.name} in {where}: expected {count:,} {split} images of shape "
                f"{dataset.shape} and as many labels, got {images.shape} and {labels.shape}: "
                f"{remedy}"
            )
        if labels.min() < 0 or labels.max() >= len(dataset.classes):
            raise BadFile(
                f"{dataset.name} in {where}: expected {split} labels in "
                f"0..{len(dataset.classes) - 1}, got {labels.min()}..{labels.max()}: {remedy}"
            )
