"""Loaders by data set name that import the tensor library only when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optiscope.data.dataset import Loader

__all__ = ["class_folders", "digits", "images", "text"]


def images(name: str) -> Loader:
    """Loader of training and test images."""

    def load(data_dir: str | Path | None = None) -> Any:
        from optiscope.data.images import load_images

        return load_images(name, data_dir)

    return load


def text(name: str) -> Loader:
    """Loader of a text."""

    def load(data_dir: str | Path | None = None) -> Any:
        from optiscope.data.text import load_text

        return load_text(name, data_dir)

    return load


def class_folders(name: str) -> Loader:
    """Loader of two folders of class folders."""

    def load(data_dir: str | Path | None = None) -> Any:
        from optiscope.data.image_folder import load_image_folders

        return load_image_folders(name, data_dir)

    return load


def digits(data_dir: str | Path | None = None) -> Any:
    """The digits that ship with scikit-learn; ``data_dir`` has no part in it."""
    from optiscope.data.images import load_digits

    return load_digits()
