"""Data sets read into tensors: readers, the catalogue, downloads, fixed splits and augmentation.

Names are imported when first used, so that listing data sets needs no tensor library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optiscope.data.augment import (
        colour_jitter,
        compose,
        horizontal_flip,
        pad_and_crop,
        standardise,
    )
    from optiscope.data.catalogue import DATASETS, Dataset, dataset_named, locate, verify
    from optiscope.data.download import fetch
    from optiscope.data.errors import BadFile, DataError, FetchFailed, MissingData
    from optiscope.data.folders import resolve_data_dir
    from optiscope.data.images import ImageData, LabelledImages, load_digits, load_images
    from optiscope.data.samples import (
        Augment,
        Batch,
        Samples,
        Splits,
        TensorSamples,
        TextWindows,
    )
    from optiscope.data.splits import fixed_split
    from optiscope.data.text import load_text

_HOMES = {
    "augment": ("colour_jitter", "compose", "horizontal_flip", "pad_and_crop", "standardise"),
    "catalogue": ("DATASETS", "Dataset", "dataset_named", "locate", "verify"),
    "errors": ("BadFile", "DataError", "FetchFailed", "MissingData"),
    "download": ("fetch",),
    "folders": ("resolve_data_dir",),
    "images": ("ImageData", "LabelledImages", "load_digits", "load_images"),
    "samples": ("Augment", "Batch", "Samples", "Splits", "TensorSamples", "TextWindows"),
    "splits": ("fixed_split",),
    "text": ("load_text",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DATASETS",
    "Augment",
    "BadFile",
    "Batch",
    "DataError",
    "Dataset",
    "FetchFailed",
    "ImageData",
    "LabelledImages",
    "MissingData",
    "Samples",
    "Splits",
    "TensorSamples",
    "TextWindows",
    "colour_jitter",
    "compose",
    "dataset_named",
    "fetch",
    "fixed_split",
    "horizontal_flip",
    "load_digits",
    "load_images",
    "load_text",
    "locate",
    "pad_and_crop",
    "resolve_data_dir",
    "standardise",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"optiscope.data.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
