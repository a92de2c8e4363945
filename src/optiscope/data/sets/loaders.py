"""Loaders of the data sets, which import the tensor library only when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optiscope.data.dataset import Dataset

__all__ = ["class_folders", "digits", "images", "text"]


def images(dataset: Dataset, data_dir: str | Path | None = None) -> Any:
    """Training and test images."""
    from optiscope.data.images import read_images

    return read_images(dataset, data_dir)


def text(dataset: Dataset, data_dir: str | Path | None = None) -> Any:
    """A text."""
    from optiscope.data.located import locate_files
    from optiscope.data.provenance import compare_all
    from optiscope.data.text import read_text

    located = locate_files(dataset, data_dir)
    compare_all(located)
    return read_text(located.paths[0], located.layout.parts[0].largest)


def class_folders(dataset: Dataset, data_dir: str | Path | None = None) -> Any:
    """Two folders of class folders: training and validation images."""
    from optiscope.data.image_folder import read_image_folders

    return read_image_folders(dataset, data_dir)


def digits(dataset: Dataset, data_dir: str | Path | None = None) -> Any:
    """The digits that ship with scikit-learn; ``data_dir`` has no part in it."""
    from optiscope.data.images import read_digits

    return read_digits(dataset)
