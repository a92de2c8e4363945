"""The catalogue of data sets: all of them by name.

Importing this module imports no tensor library, so that listing data sets is instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from optiscope.data.dataset import Dataset
from optiscope.data.errors import UnknownDataError
from optiscope.data.located import (
    FileReport,
    Located,
    Report,
    digest_of,
    locate_files,
    verify_files,
)
from optiscope.data.sets.cifar import CIFAR10, CIFAR100
from optiscope.data.sets.digits import DIGITS
from optiscope.data.sets.imagenet import IMAGENET
from optiscope.data.sets.mnist import FASHION_MNIST, MNIST
from optiscope.data.sets.svhn import SVHN
from optiscope.data.sets.tolstoi import TOLSTOI
from optiscope.errors import shorten
from optiscope.hints import did_you_mean

__all__ = [
    "DATASETS",
    "Dataset",
    "FileReport",
    "Located",
    "Report",
    "dataset_named",
    "digest_of",
    "locate",
    "verify",
]

DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        dataset.name: dataset
        for dataset in (
            DIGITS,
            MNIST,
            FASHION_MNIST,
            CIFAR10,
            CIFAR100,
            SVHN,
            TOLSTOI,
            IMAGENET,
        )
    }
)
"""All data sets by name, in the order in which they are listed."""


def dataset_named(name: str) -> Dataset:
    """The data set called ``name``.

    Raises:
        UnknownDataError: there is none; the message names the nearest one, or all.
    """
    if name in DATASETS:
        return DATASETS[name]
    raise UnknownDataError(f"unknown data set {shorten(name)}: {did_you_mean(name, DATASETS)}")


def locate(name: str, data_dir: str | Path | None = None) -> Located:
    """Files of the data set ``name`` in the first of its layouts that is complete.

    Raises:
        UnknownDataError: there is no data set ``name``.
        MissingData: no layout is complete; the message says where was searched and what to do.
    """
    return locate_files(dataset_named(name), data_dir)


def verify(name: str, data_dir: str | Path | None = None) -> Report:
    """Report on the files of the data set ``name``; see `verify_files`.

    Raises:
        UnknownDataError: there is no data set ``name``.
    """
    return verify_files(dataset_named(name), data_dir)
