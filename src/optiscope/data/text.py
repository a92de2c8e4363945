"""Plain text, gzipped or not."""

from __future__ import annotations

from pathlib import Path

from optiscope.data.bytes_of import LARGEST, read_bytes
from optiscope.data.errors import BadFile

__all__ = ["read_text"]


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Text of a UTF-8 file without its byte-order mark, every line ended by one ``\\n``.

    Raises:
        BadFile: the file is empty, not UTF-8, or unpacks to more than ``largest`` bytes.
    """
    content = read_bytes(path, largest)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(
            f"{path}: expected UTF-8 text, got byte {content[error.start]:#04x} at position "
            f"{error.start:,}: convert it or fetch it again"
        ) from error
    if not text:
        raise BadFile(f"{path}: expected a text, got an empty file: fetch it again")
    return text.replace("\r\n", "\n").replace("\r", "\n")
