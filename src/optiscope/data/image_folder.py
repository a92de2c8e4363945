"""Folders of photographs, one folder per class, decoded a batch at a time.

Index legend: B images in a batch, H x W pixels after scaling and cropping.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optiscope.data.dataset import Dataset
from optiscope.data.encoded_image import LARGEST_IMAGE, ImageError, open_image
from optiscope.data.errors import BadFile, MissingData
from optiscope.data.located import locate_files

__all__ = ["ImageFolder", "read_image_folder", "read_image_folders"]

SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})


@dataclass(frozen=True)
class ImageFolder:
    """Image files with labels: ``paths`` and int64 ``labels`` [N], and the classes' names."""

    paths: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def decode(
        self,
        indices: Sequence[int] | Tensor,
        size: int = 224,
        resize: int = 256,
        pool: Executor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """RGB images uint8 [B, 3, size, size] and labels int64 [B] of the files at ``indices``.

        The shorter side is scaled to ``resize`` pixels (bilinear with antialiasing) and the central
        square of ``size`` pixels is cut out. With a ``pool`` of threads, files are decoded at the
        same time; the result is the same.

        Raises:
            ValueError: ``size`` is not in 1..``resize``.
            BadFile: a file cannot be decoded.
        """
        if not 1 <= size <= resize:
            raise ValueError(f"size must lie in 1..{resize} (resize), got {size}")
        chosen = [int(index) for index in indices]

        def one(index: int) -> NDArray[np.uint8]:
            return _decode(self.paths[index], size, resize)

        decoded = list(pool.map(one, chosen) if pool is not None else map(one, chosen))
        images = np.stack(decoded) if decoded else np.empty((0, 3, size, size), dtype=np.uint8)
        return torch.from_numpy(images), self.labels[torch.tensor(chosen, dtype=torch.int64)]


def read_image_folder(folder: Path) -> ImageFolder:
    """Images of ``folder``: subfolders in order of name are the classes, their files the images.

    Files are in order of class, then of name; hidden files and other suffixes are passed over.

    Raises:
        MissingData: ``folder`` is no folder, or holds no class folder with images.
    """
    if not folder.is_dir():
        raise MissingData(f"image folder {folder} not found: point at a folder of class folders")
    classes = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."
    )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            path
            for path in (folder / name).iterdir()
            if path.suffix.lower() in SUFFIXES and path.name[0] != "."
        )
        if not found:
            raise MissingData(
                f"class folder {folder / name} holds no image ({', '.join(sorted(SUFFIXES))}): "
                "remove it or unpack it again"
            )
        paths += found
        labels += [label] * len(found)
    if not classes:
        raise MissingData(f"{folder} holds no class folders: expected {folder}/CLASS/*.jpeg")
    return ImageFolder(tuple(paths), torch.tensor(labels, dtype=torch.int64), tuple(classes))


def _decode(path: Path, size: int, resize: int) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        rgb = open_image(path, "RGB")
    except ImageError as error:
        raise BadFile(f"{path}: {error}") from error
    scale = resize / min(rgb.size)
    width, height = (max(resize, round(side * scale)) for side in rgb.size)
    if width * height > LARGEST_IMAGE:
        raise BadFile(f"{path}: cannot scale an image of {rgb.height} x {rgb.width} pixels")
    left, top = (width - size) // 2, (height - size) // 2
    scaled = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(scaled.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


def read_image_folders(
    dataset: Dataset, data_dir: str | Path | None = None
) -> tuple[ImageFolder, ImageFolder]:
    """Training and validation images of a data set of class folders.

    Raises:
        MissingData: the folders are not below the data folder.
        BadFile: the validation images have other classes than the training images.
    """
    files = locate_files(dataset, data_dir).files
    train, val = (read_image_folder(files[split][0]) for split in ("train", "val"))
    if train.classes != val.classes:
        differing = sorted(set(train.classes) ^ set(val.classes))
        raise BadFile(
            f"{files['val'][0]}: expected the {len(train.classes)} class folders of "
            f"{files['train'][0]}, got {len(val.classes)} ({differing[0]} is in one only): "
            "sort validation images into the same class folders"
        )
    return train, val
