"""SVHN: cropped house-number digits, 32 x 32 colour, in MATLAB files."""

from __future__ import annotations

from optiscope.data.dataset import Dataset, Layout, Part, RemoteFile, sha256
from optiscope.data.layouts import hub_layout
from optiscope.data.sets import loaders

__all__ = ["SVHN"]

FILES = {
    "train": (
        182_040_794,
        sha256("435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
    ),
    "test": (
        64_275_384,
        sha256("cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
    ),
}

SVHN = Dataset(
    name="svhn",
    description="house numbers, 32 x 32 colour, 73,257 training and 26,032 test images",
    licence="for non-commercial use only",
    source="http://ufldl.stanford.edu/housenumbers/",
    files=tuple(
        RemoteFile(
            (f"http://ufldl.stanford.edu/housenumbers/{split}_32x32.mat",),
            f"svhn/{split}_32x32.mat",
            size,
            digest,
        )
        for split, (size, digest) in FILES.items()
    ),
    loader=loaders.images,
    layouts=(
        Layout(
            "matlab",
            "matlab",
            tuple(
                Part(
                    split,
                    tuple(f"{folder}{split}_32x32.mat" for folder in ("svhn/", "SVHN/", "")),
                    digest,
                )
                for split, (_, digest) in FILES.items()
            ),
        ),
        hub_layout("svhn/cropped_digits", "svhn"),
    ),
    shape=(3, 32, 32),
    counts=(73_257, 26_032),
    classes=tuple("0123456789"),
)
