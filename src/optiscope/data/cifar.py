"""CIFAR-10 and CIFAR-100: the original binary and Python archives, packed or unpacked.

Both hold images row by row as [N, 3·32·32] bytes, channels first. CIFAR-100 has a coarse label
before the fine one; the fine one is read. Source: https://www.cs.toronto.edu/~kriz/cifar.html
Index legend: N samples in a file.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from optiscope.data.bytes_of import LARGEST, open_unpacked, read_bytes
from optiscope.data.errors import BadFile
from optiscope.data.inert_pickle import load_inert

__all__ = ["CIFAR_SHAPE", "parse_binary", "parse_pickle", "read_archive", "read_folder"]

CIFAR_SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
LARGEST_MEMBER = 256 * 2**20

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]


def parse_binary(content: bytes, labels_per_row: int, where: str) -> Labelled:
    """Images [N, 3, 32, 32] and labels [N] of rows of label bytes and 3,072 pixel bytes.

    Of the ``labels_per_row`` label bytes of a row, the last is returned.

    Raises:
        BadFile: ``content`` is not a whole number of rows.
    """
    width = labels_per_row + PIXELS
    if not content or len(content) % width:
        raise BadFile(
            f"{where}: expected a multiple of {width:,} bytes, got {len(content):,}: "
            "the file is damaged, fetch it again"
        )
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, width)
    images = np.ascontiguousarray(rows[:, labels_per_row:]).reshape(-1, *CIFAR_SHAPE)
    return images, rows[:, labels_per_row - 1].astype(np.int64)


def parse_pickle(content: bytes, where: str) -> Labelled:
    """Images [N, 3, 32, 32] and labels [N] of one pickled batch, read without executing it.

    Raises:
        BadFile: not a pickle of plain data, or one without ``data`` and ``labels`` (CIFAR-100:
            ``fine_labels``) that fit each other.
    """
    batch = load_inert(content, where)
    images = _entry(batch, "data")
    labels = _entry(batch, "labels")
    labels = _entry(batch, "fine_labels") if labels is None else labels
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.shape[1:] != (PIXELS,)
        or not isinstance(labels, list)
        or not all(isinstance(label, int) for label in labels)
        or len(labels) != len(images)
    ):
        got = "no array" if not isinstance(images, np.ndarray) else f"{images.dtype} {images.shape}"
        count = len(labels) if isinstance(labels, list) else "no"
        raise BadFile(
            f"{where}: expected data uint8 (N, {PIXELS}) and N integer labels, got {got} and "
            f"{count} labels: fetch it again"
        )
    return images.reshape(-1, *CIFAR_SHAPE), np.array(labels, dtype=np.int64)


def read_folder(paths: Sequence[Path], labels_per_row: int) -> Labelled:
    """Images and labels of the unpacked batch files ``paths``, in order."""
    return _joined(
        [_parse(read_bytes(path), labels_per_row, str(path), path.name) for path in paths]
    )


def read_archive(
    path: Path, members: Sequence[Sequence[str]], labels_per_row: int
) -> list[Labelled]:
    """Images and labels of each group of batch files inside a ``.tar.gz``, which is never unpacked.

    ``members`` holds groups of file names (without folder), for example training and test batches.

    Raises:
        BadFile: the archive is damaged, or lacks a member.
    """
    wanted = {name for group in members for name in group}
    parsed: dict[str, Labelled] = {}
    with open_unpacked(path, LARGEST) as stream:
        try:
            with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as archive:
                for member in archive:
                    name = member.name.rsplit("/", 1)[-1]
                    if name in wanted and member.isfile() and member.size <= LARGEST_MEMBER:
                        content = archive.extractfile(member)
                        if content is not None:
                            where = f"{path}, member {name}"
                            parsed[name] = _parse(content.read(), labels_per_row, where, name)
            while stream.read(2**20):
                pass  # the check sum of what was unpacked stands at the end
        except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            raise BadFile(f"{path}: damaged archive ({reason}): fetch it again") from error
    missing = sorted(wanted - parsed.keys())
    if missing:
        raise BadFile(f"{path}: archive lacks {', '.join(missing)}: fetch it again")
    return [_joined([parsed[name] for name in group]) for group in members]


def _parse(content: bytes, labels_per_row: int, where: str, name: str) -> Labelled:
    if name.endswith(".bin"):
        return parse_binary(content, labels_per_row, where)
    return parse_pickle(content, where)


def _joined(parts: Sequence[Labelled]) -> Labelled:
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _entry(batch: Any, key: str) -> Any:
    """Value of ``key``, written by Python 2 (bytes) or Python 3 (text)."""
    if not isinstance(batch, dict):
        return None
    return batch.get(key.encode(), batch.get(key))
