"""Plain text, gzipped or not."""

from __future__ import annotations

from pathlib import Path

from optiscope.data.bytes_of import read_bytes
from optiscope.data.catalogue import dataset_named, locate
from optiscope.data.errors import BadFile

__all__ = ["load_text", "read_text"]


def load_text(name: str, data_dir: str | Path | None = None) -> str:
    """Whole text of the data set ``name`` (``"tolstoi"``), every line ended by one ``\\n``.

    Raises:
        ValueError: ``name`` is not a text data set.
        MissingData: it is not in the data folder.
        BadFile: its file is damaged.
    """
    if not any(layout.format == "text" for layout in dataset_named(name).layouts):
        raise ValueError(f"data set {name!r} is not a text: expected 'tolstoi'")
    return read_text(locate(name, data_dir).paths[0])


def read_text(path: Path) -> str:
    """Text of a UTF-8 file without its byte-order mark, every line ended by one ``\\n``.

    Raises:
        BadFile: the file is empty or not UTF-8.
    """
    content = read_bytes(path)
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
