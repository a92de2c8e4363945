"""Data sets read into tensors: readers, the catalogue, downloads, fixed splits and augmentation.

Names are imported when first used, so that listing data sets needs no tensor library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optiscope import lazy

if TYPE_CHECKING:
    from optiscope.data.augment import colour_jitter as colour_jitter
    from optiscope.data.augment import compose as compose
    from optiscope.data.augment import horizontal_flip as horizontal_flip
    from optiscope.data.augment import pad_and_crop as pad_and_crop
    from optiscope.data.augment import standardise as standardise
    from optiscope.data.catalogue import DATASETS as DATASETS
    from optiscope.data.catalogue import Dataset as Dataset
    from optiscope.data.catalogue import dataset_named as dataset_named
    from optiscope.data.catalogue import locate as locate
    from optiscope.data.catalogue import verify as verify
    from optiscope.data.download import fetch as fetch
    from optiscope.data.errors import BadFile as BadFile
    from optiscope.data.errors import DataError as DataError
    from optiscope.data.errors import FetchFailed as FetchFailed
    from optiscope.data.errors import MissingData as MissingData
    from optiscope.data.errors import UnknownDataError as UnknownDataError
    from optiscope.data.folders import resolve_data_dir as resolve_data_dir
    from optiscope.data.images import ImageData as ImageData
    from optiscope.data.images import LabelledImages as LabelledImages
    from optiscope.data.load import load_digits as load_digits
    from optiscope.data.load import load_images as load_images
    from optiscope.data.load import load_text as load_text
    from optiscope.data.samples import Augment as Augment
    from optiscope.data.samples import Batch as Batch
    from optiscope.data.samples import DatasetSamples as DatasetSamples
    from optiscope.data.samples import Samples as Samples
    from optiscope.data.samples import SamplesError as SamplesError
    from optiscope.data.samples import Splits as Splits
    from optiscope.data.samples import TensorSamples as TensorSamples
    from optiscope.data.samples import TextWindows as TextWindows
    from optiscope.data.samples import as_samples as as_samples
    from optiscope.data.splits import fixed_split as fixed_split

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "augment": (
            "colour_jitter",
            "compose",
            "horizontal_flip",
            "pad_and_crop",
            "standardise",
        ),
        "catalogue": (
            "DATASETS",
            "Dataset",
            "dataset_named",
            "locate",
            "verify",
        ),
        "download": ("fetch",),
        "errors": (
            "BadFile",
            "DataError",
            "FetchFailed",
            "MissingData",
            "UnknownDataError",
        ),
        "folders": ("resolve_data_dir",),
        "images": (
            "ImageData",
            "LabelledImages",
        ),
        "load": ("load_digits", "load_images", "load_text"),
        "samples": (
            "Augment",
            "Batch",
            "DatasetSamples",
            "Samples",
            "SamplesError",
            "Splits",
            "TensorSamples",
            "TextWindows",
            "as_samples",
        ),
        "splits": ("fixed_split",),
    },
)
