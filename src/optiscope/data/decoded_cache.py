"""Decoded copies of encoded data: arrays on disk, keyed by the content they were decoded from.

An entry is a folder of ``.npy`` files with a manifest of their checksums. It is written beside its
place and renamed into it, so it appears whole or not at all, whoever else is decoding at the same
time. The cache is an aid: where it cannot be read or written, data are decoded anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optiscope.data.folders import CACHE_DIR_VARIABLE, resolve_cache_dir
from optiscope.data.located import digest_of

__all__ = ["decoded"]

Arrays = dict[str, NDArray[np.generic]]
MANIFEST = "manifest.json"
DRAFT = ".draft-"
DAY = 86_400.0
"""Seconds."""


def decoded(name: str, sources: Sequence[Path], decode: Callable[[], Arrays]) -> Arrays:
    """Arrays that ``decode`` makes from ``sources``, from the cache where it has them.

    ``name`` says what is decoded and by which version of the reader. The key is made of it and of
    the content of ``sources``: moving or touching files does not matter, changing them does.
    """
    entry = resolve_cache_dir() / f"{name}-{_fingerprint(sources)}"
    cached = _read(entry)
    if cached is not None:
        return cached
    arrays = decode()
    try:
        _write(entry, arrays)
    except OSError as error:
        warnings.warn(
            f"decoded data were not kept in {entry.parent} ({error.strerror or error}) and will be "
            f"decoded again next time: point {CACHE_DIR_VARIABLE} at a writable folder",
            stacklevel=2,
        )
    return arrays


def _fingerprint(sources: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for source in sources:
        total.update(digest_of(source, "sha256").value.encode())
    return total.hexdigest()[:32]


def _read(entry: Path) -> Arrays | None:
    """Arrays of a cache entry, or None where there is none or it is damaged."""
    try:
        checksums = json.loads((entry / MANIFEST).read_text())
        arrays = {key: np.load(entry / f"{key}.npy", allow_pickle=False) for key in checksums}
        intact = all(_checksum(array) == checksums[key] for key, array in arrays.items())
    except Exception:  # whatever is wrong with the copy, the source is at hand
        return None
    return arrays if intact and arrays else None


def _write(entry: Path, arrays: Arrays) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    _sweep(entry.parent)
    draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=entry.parent))
    try:
        for key, array in arrays.items():
            np.save(draft / f"{key}.npy", array, allow_pickle=False)
        checksums = {key: _checksum(array) for key, array in arrays.items()}
        (draft / MANIFEST).write_text(json.dumps(checksums))
        try:
            draft.rename(entry)
        except OSError:
            if _read(entry) is None:  # a damaged entry is in the way
                shutil.rmtree(entry, ignore_errors=True)
                draft.rename(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove drafts that processes killed a day or more ago left behind."""
    for draft in folder.glob(f"{DRAFT}*"):
        with suppress(FileNotFoundError):  # finished by its process meanwhile
            if time.time() - draft.stat().st_mtime > DAY:
                shutil.rmtree(draft, ignore_errors=True)


def _checksum(array: NDArray[np.generic]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data.cast("B"))
