"""The bytes of a file, gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from optiscope.data.errors import BadFile

__all__ = ["GZIP_MAGIC", "read_bytes"]

GZIP_MAGIC = b"\x1f\x8b"


def read_bytes(path: Path) -> bytes:
    """Content of ``path``, uncompressed where it is gzipped (by its first bytes, not by its name).

    Raises:
        BadFile: the file cannot be read, or its compressed stream is damaged.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadFile(f"{path}: damaged gzip stream ({error}): fetch it again") from error
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror or error})") from error
