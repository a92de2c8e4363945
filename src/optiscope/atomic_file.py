"""Files that are written whole or not at all: a draft beside the place, then renamed into it."""

from __future__ import annotations

import errno
import json
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["commit", "draft", "replacing", "sync", "write_atomically", "write_json_atomically"]


@contextmanager
def draft(folder: Path, name: str = "partial") -> Iterator[Path]:
    """A path in ``folder`` that nobody else writes to; gone when the block ends."""
    path = folder / f".{name}-{uuid.uuid4().hex}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def commit(written: Path, path: Path, *, durable: bool = True) -> None:
    """Put a draft in its place; readers see the old file or the whole new one.

    Args:
        written: in the same folder as ``path``.
        path: may exist.
        durable: wait until both are on the disk, so that a power failure loses neither.
    """
    if durable:
        sync(written)
    os.replace(written, path)
    if durable:
        sync(path.parent)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A draft that takes the place of ``path`` when the block ends without an error.

    Raises:
        OSError: the disk is full or the folder read-only; the old file stays.
    """
    with draft(path.parent, path.name) as written:
        yield written
        commit(written, path, durable=durable)


def write_atomically(path: Path, text: str, *, durable: bool = False) -> None:
    """Write text, in UTF-8, whole or not at all. Raises ``OSError``."""
    with replacing(path, durable=durable) as written:
        written.write_text(text, encoding="utf-8")


def write_json_atomically(path: Path, content: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one, also after a crash.

    Raises:
        OSError: the disk is full or the folder read-only; the old file stays.
    """
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n", durable=True)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; some file systems cannot say so of folders."""
    if sys.platform == "win32" and path.is_dir():
        return  # Windows opens no folders
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if not path.is_dir():  # Windows opens no folders
            raise
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        cannot = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
        if not (path.is_dir() and error.errno in cannot):
            raise
    finally:
        os.close(descriptor)
