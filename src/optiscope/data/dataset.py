"""What a data set is: its licence, its official files, and the folder layouts it is read from.

No tensor library is imported here: the command line lists data sets from these values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from optiscope.data.bytes_of import LARGEST

__all__ = ["Dataset", "Digest", "Format", "Layout", "Loader", "Part", "RemoteFile", "md5", "sha256"]

Format = Literal[
    "idx",
    "cifar_binary",
    "cifar_pickle",
    "cifar_archive",
    "parquet",
    "matlab",
    "text",
    "class_folders",
]
Loader = Callable[["Dataset", str | Path | None], Any]
"""``loader(dataset, data_dir)``; see `Dataset.load`."""


@dataclass(frozen=True)
class Digest:
    """Checksum of a file, in lower-case hexadecimal digits."""

    algorithm: Literal["sha256", "md5"]
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm} {self.value}"


def sha256(value: str) -> Digest:
    """The SHA-256 digest ``value``."""
    return Digest("sha256", value)


def md5(value: str) -> Digest:
    """The MD5 digest ``value``, for files whose publisher gives no other."""
    return Digest("md5", value)


@dataclass(frozen=True)
class RemoteFile:
    """An official file: where it is served, where it goes below the data folder, its digest.

    Attributes:
        urls: addresses of the same file, tried in order.
        place: path below the data folder.
        size: bytes, or None where the publisher revises the file.
        digest: of the file as served, or None where the publisher revises the file.
        marker: bytes that occur near the start of every revision, checked where there is no digest.
        ending: bytes that occur near the end of every revision, checked in the same case.
    """

    urls: tuple[str, ...]
    place: str
    size: int | None
    digest: Digest | None
    marker: bytes = b""
    ending: bytes = b""


@dataclass(frozen=True)
class Part:
    """One role in a layout: where its files may lie below the data folder, and their digest.

    Attributes:
        role: what the file holds.
        places: paths below the data folder, possibly with ``*``. The first place with a match is
            used, with all its matches in order of name.
        digest: of the file, or None where nobody publishes one.
        unpacked: whether ``digest`` is of what the file unpacks to, so that compressing it anew
            changes nothing.
        revised: what a file with another digest is, where that is no error.
        folder: whether the part is a folder, not a file.
        largest: bytes that the file may unpack to; what unpacks to more is refused.
    """

    role: str
    places: tuple[str, ...]
    digest: Digest | None = None
    unpacked: bool = False
    revised: str = ""
    folder: bool = False
    largest: int = LARGEST

    def find(self, folder: Path) -> tuple[Path, ...]:
        """Files (or folders) of this part below ``folder``; empty where there are none."""
        for place in self.places:
            found = sorted(
                path
                for path in folder.glob(place)
                if (path.is_dir() if self.folder else path.is_file())
            )
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
class Dataset:
    """A data set by name: description, licence, official files, known layouts, and its loader.

    Attributes:
        name: word by which problems and the command line name it.
        description: what it holds, in one line.
        licence: under which terms the data may be used.
        source: where it was published.
        files: official files to download; empty where it ships with a dependency or must not be
            downloaded.
        loader: reads it, see `load`.
        layouts: folder layouts it is read from, the most faithful first; empty where it ships with
            a dependency.
        shape: (channels, height, width) of an image, where all have one.
        counts: (training, test) samples, where they are fixed.
        classes: names of the classes, where they are fixed.
        how_to_get: what to do where ``files`` is empty.
    """

    name: str
    description: str
    licence: str
    source: str
    files: tuple[RemoteFile, ...]
    loader: Loader
    layouts: tuple[Layout, ...] = ()
    shape: tuple[int, int, int] | None = None
    counts: tuple[int, int] | None = None
    classes: tuple[str, ...] = field(default=(), repr=False)
    how_to_get: str = ""

    def load(self, data_dir: str | Path | None = None) -> Any:
        """The data: `ImageData`, `LabelledImages`, two `ImageFolder` or a text.

        Args:
            data_dir: folder of the data sets; None for "look where the user's settings say".

        Raises:
            MissingData: it is not in the data folder.
            BadFile: a file is damaged.
        """
        return self.loader(self, data_dir)

    @property
    def download_bytes(self) -> int | None:
        """Bytes of all official files, or None where one of them has no fixed size."""
        sizes = [file.size for file in self.files if file.size is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None
