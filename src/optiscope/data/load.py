"""Data sets loaded by name: each function knows the names of one kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from optiscope.data.catalogue import DATASETS, dataset_named
from optiscope.data.dataset import Loader
from optiscope.data.errors import UnknownDataError
from optiscope.data.sets import loaders

if TYPE_CHECKING:
    from optiscope.data.image_folder import ImageFolder
    from optiscope.data.images import ImageData, LabelledImages

__all__ = ["load_digits", "load_image_folders", "load_images", "load_text"]


def load_images(name: str, data_dir: str | Path | None = None) -> ImageData:
    """Images of mnist, fashion_mnist, cifar10, cifar100 or svhn, from any of their layouts.

    Raises:
        UnknownDataError: ``name`` is not one of these.
        MissingData: the data set is not in the data folder.
        BadFile: a file is damaged, or counts, shape or labels are not those of the data set.
    """
    images: ImageData = _load(
        name, loaders.images, "has no fixed training and test images", data_dir
    )
    return images


def load_digits() -> LabelledImages:
    """The 1,797 digits of scikit-learn: images uint8 [1797, 1, 8, 8] of 0..16, labels int64 [1797].

    They have no test split.
    """
    digits: LabelledImages = _load("digits", loaders.digits, "is not digits", None)
    return digits


def load_image_folders(
    name: str, data_dir: str | Path | None = None
) -> tuple[ImageFolder, ImageFolder]:
    """Training and validation images of the data set ``name`` (``"imagenet"``).

    Raises:
        UnknownDataError: ``name`` is not a data set of class folders.
        MissingData: the folders are not below the data folder.
        BadFile: the validation images have other classes than the training images.
    """
    folders: tuple[ImageFolder, ImageFolder] = _load(
        name, loaders.class_folders, "has no class folders", data_dir
    )
    return folders


def load_text(name: str, data_dir: str | Path | None = None) -> str:
    """Whole text of the data set ``name`` (``"tolstoi"``), every line ended by one ``\\n``.

    Raises:
        UnknownDataError: ``name`` is not a text data set.
        MissingData: it is not in the data folder.
        BadFile: its file is damaged.
    """
    text: str = _load(name, loaders.text, "is not a text", data_dir)
    return text


def _load(name: str, loader: Loader, otherwise: str, data_dir: str | Path | None) -> Any:
    dataset = dataset_named(name)
    if dataset.loader is not loader:
        known = ", ".join(repr(n) for n, other in DATASETS.items() if other.loader is loader)
        raise UnknownDataError(
            f"data set {name!r} {otherwise}: expected {known}, or load it with "
            f"optiscope.data.DATASETS[{name!r}].load()"
        )
    return dataset.load(data_dir)
