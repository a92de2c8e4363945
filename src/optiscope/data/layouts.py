"""The folder layouts in which people already have a data set, and the digests of their files.

A layout names its files by role; each role has one or more places below the data folder, tried in order.
No tensor library is imported here: the command line lists data sets from these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

__all__ = ["Digest", "Layout", "Located", "Part", "cifar_layouts", "hub_layout", "idx_layout"]

Format = Literal[
    "idx", "cifar_binary", "cifar_pickle", "cifar_archive", "parquet", "matlab", "text", "folders"
]


@dataclass(frozen=True)
class Digest:
    """Published checksum of a file's content; for a gzipped array or text, of what it unpacks to."""

    algorithm: Literal["sha256", "md5"]
    value: str


@dataclass(frozen=True)
class Part:
    """One role in a layout: where its file may lie below the data folder, and its digest.

    ``places`` are relative paths, possibly with ``*``; the first place with a match is used, with all
    its matches in order of name. ``digest`` is None where nobody publishes one.
    """

    role: str
    places: tuple[str, ...]
    digest: Digest | None = None
    unpack: bool = False

    def find(self, folder: Path) -> tuple[Path, ...]:
        """Files of this part below ``folder``; empty where there are none."""
        for place in self.places:
            found = sorted(path for path in folder.glob(place) if path.is_file())
            if found:
                return tuple(found)
        return ()


@dataclass(frozen=True)
class Layout:
    """One way to hold a data set on disk: a file format and its parts."""

    name: str
    format: Format
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Located:
    """A complete data set on disk: its layout and the files of each role."""

    folder: Path
    layout: Layout
    files: Mapping[str, tuple[Path, ...]]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, in the layout's order."""
        return tuple(path for part in self.layout.parts for path in self.files[part.role])


def locate_layout(layout: Layout, folder: Path) -> tuple[Located | None, tuple[str, ...]]:
    """The layout's files below ``folder`` where all are there, and the roles that are missing."""
    files = {part.role: part.find(folder) for part in layout.parts}
    missing = tuple(role for role, found in files.items() if not found)
    located = None if missing else Located(folder, layout, MappingProxyType(files))
    return located, missing


def idx_layout(folders: tuple[str, ...], sha256: Mapping[str, str]) -> Layout:
    """Four IDX files of the MNIST family, gzipped or not; digests are of the unpacked files."""
    names = {
        "train_images": "train-images-idx3-ubyte",
        "train_labels": "train-labels-idx1-ubyte",
        "test_images": "t10k-images-idx3-ubyte",
        "test_labels": "t10k-labels-idx1-ubyte",
    }
    return Layout(
        "idx",
        "idx",
        tuple(
            Part(
                role,
                tuple(f"{folder}/{name}{end}" for folder in folders for end in ("", ".gz")),
                Digest("sha256", sha256[role]),
                unpack=True,
            )
            for role, name in names.items()
        ),
    )


def cifar_layouts(
    folders: tuple[str, ...],
    *,
    binary: tuple[str, Mapping[str, Digest | None]],
    pickled: tuple[str, Mapping[str, Digest | None]],
    archives: Mapping[str, Digest],
) -> tuple[Layout, ...]:
    """The original CIFAR distributions: unpacked binary or pickled batches, and the two archives.

    ``binary`` and ``pickled`` are a folder's name and its batch files with their digests; the training
    batches come first, the test batch last. ``archives`` maps file names to digests.
    """

    def unpacked(
        name: str, format: Format, batches: tuple[str, Mapping[str, Digest | None]]
    ) -> Layout:
        folder, files = batches
        return Layout(
            name,
            format,
            tuple(
                Part(file, tuple(f"{above}{folder}/{file}" for above in folders), digest)
                for file, digest in files.items()
            ),
        )

    packed = tuple(
        Layout(file, "cifar_archive", (Part(file, tuple(f"{a}{file}" for a in folders), digest),))
        for file, digest in archives.items()
    )
    return (
        unpacked(binary[0], "cifar_binary", binary),
        unpacked(pickled[0], "cifar_pickle", pickled),
        *packed,
    )


def hub_layout(*folders: str) -> Layout:
    """Parquet files of encoded images, as data set hubs serve them."""
    return Layout(
        "parquet",
        "parquet",
        tuple(
            Part(split, tuple(f"{folder}/{split}-*.parquet" for folder in folders))
            for split in ("train", "test")
        ),
    )
