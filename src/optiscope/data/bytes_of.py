"""The bytes of a file, gzipped or not, and never more of them than the caller expects."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from optiscope.data.errors import BadFile

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["GZIP_MAGIC", "LARGEST", "LimitedReader", "open_unpacked", "read_bytes"]

GZIP_MAGIC = b"\x1f\x8b"
LARGEST = 512 * 2**20
"""Bytes that a file may unpack to where nothing says how many it should hold."""
BLOCK = 2**20


class LimitedReader:
    """A binary stream that is refused once more than ``largest`` bytes were read from it.

    A few megabytes of a compressed file can unpack to gigabytes, so whoever reads one says how much
    it may hold.
    """

    def __init__(
        self, stream: BinaryIO, path: Path, largest: int, state: _Hash | None = None
    ) -> None:
        self._stream, self._path, self._largest, self._read = stream, path, largest, 0
        self._state = state

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, or all that is left.

        Raises:
            BadFile: the file holds more than ``largest`` bytes.
        """
        room = self._largest - self._read + 1
        content = self._stream.read(room if size < 0 else min(size, room))
        self._read += len(content)
        if self._state is not None:
            self._state.update(content)
        if self._read > self._largest:
            raise BadFile(
                f"{self._path}: expected at most {self._largest:,} bytes, it unpacks to more: "
                "fetch it again"
            )
        return content


@contextmanager
def open_unpacked(
    path: Path, largest: int = LARGEST, state: _Hash | None = None
) -> Iterator[LimitedReader]:
    """Stream of ``path``, uncompressed where it is gzipped (by its first bytes, not by its name).

    ``state`` is updated with everything that is read.

    Raises:
        BadFile: the file cannot be read, is no regular file, its compressed stream is damaged, or
            it holds more than ``largest`` bytes; also from within the block.
    """
    try:
        if not os.path.isfile(path) and os.path.exists(path):
            raise BadFile(f"{path}: expected a file, got a folder or a device")
        with path.open("rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            if not packed:
                yield LimitedReader(raw, path, largest, state)
                return
            with gzip.GzipFile(fileobj=raw) as stream:
                yield LimitedReader(cast(BinaryIO, stream), path, largest, state)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadFile(f"{path}: damaged gzip stream ({error}): fetch it again") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadFile(f"{path}: cannot be read ({reason})") from error


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """Content of ``path``, uncompressed where it is gzipped.

    Raises:
        BadFile: as `open_unpacked`.
    """
    blocks = []
    with open_unpacked(path, largest) as stream:
        while block := stream.read(BLOCK):
            blocks.append(block)
    return b"".join(blocks)
