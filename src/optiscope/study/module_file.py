"""The file that a module's name stands for, found by looking at folders: nothing is imported."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["module_file", "source_text"]

LARGEST_SOURCE = 4 * 2**20
"""Bytes; a source file beyond them is not read."""

_COMPILED = (*importlib.machinery.EXTENSION_SUFFIXES, *importlib.machinery.BYTECODE_SUFFIXES)


def module_file(name: str, search: Iterable[str] | None = None) -> Path | None:
    """Source file of the module ``name``, such as ``package.module``.

    Folders are searched as Python's own path finder does: the first regular package or module
    wins, folders without ``__init__.py`` are parts of a namespace package. Neither the module nor
    a package above it is imported, so a name from somebody else's record can be looked up.

    Args:
        name: the module's absolute name.
        search: folders of top-level modules; ``sys.path`` unless given. Only folders are looked
            into, not archives.

    Returns:
        None where there is no such module, or it is not source text.
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    file: Path | None = None
    folders = [Path(entry or os.curdir) for entry in (sys.path if search is None else search)]
    for part in parts:
        file, folders = _find(part, folders)
    return file


def source_text(file: Path) -> str:
    """Text of a source file.

    Raises:
        OSError: it cannot be read.
        ValueError: no regular file, larger than `LARGEST_SOURCE`, or not UTF-8.
    """
    if not os.path.isfile(file):  # a pipe or a device would never end
        raise ValueError(f"{file} is not a regular file")
    with file.open("rb") as stream:
        content = stream.read(LARGEST_SOURCE + 1)
    if len(content) > LARGEST_SOURCE:
        raise ValueError(f"{file} is larger than {LARGEST_SOURCE:,} bytes")
    return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def _find(part: str, folders: Iterable[Path]) -> tuple[Path | None, list[Path]]:
    """File of one part of a dotted name, and the folders of the modules inside of it."""
    portions: list[Path] = []
    for folder in folders:
        package, module = folder / part, folder / f"{part}.py"
        inside = package / "__init__.py"
        if os.path.isfile(inside):
            return inside, [package]
        if any(os.path.isfile(folder / f"{part}{suffix}") for suffix in _COMPILED):
            return None, []
        if os.path.isfile(module):
            return module, []
        if os.path.isdir(package):
            portions.append(package)
    return None, portions
