"""ImageNet (ILSVRC 2012) as folders of class folders, which the user has to bring."""

from __future__ import annotations

from optiscope.data.dataset import Dataset, Layout, Part
from optiscope.data.sets import loaders

__all__ = ["IMAGENET"]

IMAGENET = Dataset(
    name="imagenet",
    description="photographs of 1,000 classes, 1.28 million to train on and 50,000 to validate on",
    licence="non-commercial research and education only, by agreement with image-net.org",
    source="https://www.image-net.org/challenges/LSVRC/2012/",
    files=(),
    loader=loaders.class_folders,
    layouts=(
        Layout(
            "class folders",
            "class_folders",
            tuple(
                Part(
                    split,
                    tuple(f"{folder}{split}" for folder in ("imagenet/", "ImageNet/", "")),
                    folder=True,
                )
                for split in ("train", "val")
            ),
        ),
    ),
    how_to_get=(
        "it is never fetched: ask image-net.org for access, unpack it into imagenet/train/CLASS/ "
        "and imagenet/val/CLASS/, and name the folder above with --data-dir or OPTISCOPE_DATA_DIR"
    ),
)
