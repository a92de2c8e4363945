"""Writers of the formats that optiscope.data reads, from their specifications.

Index legend: N samples.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

Bytes = NDArray[np.uint8]


def pixels(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(count: int, classes: int = 10) -> list[int]:
    return [(3 * n + 1) % classes for n in range(count)]


def idx_bytes(array: Bytes) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write(path: Path, content: bytes, *, packed: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return path


def cifar_rows(images: Bytes, *label_columns: Sequence[int]) -> bytes:
    """Binary CIFAR rows: the label bytes, then 3,072 pixel bytes."""
    columns = np.array(label_columns, dtype=np.uint8).T
    return np.concatenate([columns, images.reshape(len(images), -1)], axis=1).tobytes()


def cifar_pickle(images: Bytes, key: str, values: Sequence[int], *, protocol: int = 2) -> bytes:
    """A CIFAR batch as Python 3 and numpy pickle it."""
    batch = {"batch_label": "a batch", key: list(values), "data": images.reshape(len(images), -1)}
    return pickle.dumps(batch, protocol=protocol)


def python2_pickle(images: Bytes, key: bytes, values: Sequence[int]) -> bytes:
    """A CIFAR batch, opcode by opcode as Python 2 and numpy wrote the published ones."""

    def string(content: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(content)) + content

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    count, size = len(images), images[0].size
    array = b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\n",
            b"(cnumpy\nndarray\n" + integer(0) + b"\x85" + string(b"b") + b"tR",
            b"(" + integer(1) + integer(count) + integer(size) + b"\x86",
            b"cnumpy\ndtype\n(" + string(b"u1") + integer(0) + integer(1) + b"tR",
            b"(" + integer(3) + string(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0),
            b"tb\x89" + string(images.tobytes()) + b"tb",
        ]
    )
    listed = b"](" + b"".join(integer(value) for value in values) + b"e"
    return b"\x80\x02}(" + string(b"data") + array + string(key) + listed + b"u."


def tar_gz(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def encoded(image: Bytes, form: str = "PNG") -> bytes:
    """One image [C, H, W] as a PNG or JPEG file."""
    stream = io.BytesIO()
    values = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    Image.fromarray(values).save(stream, form)
    return stream.getvalue()


def parquet(
    path: Path,
    cells: Sequence[bytes | None],
    values: Sequence[int],
    *,
    image: str = "img",
    label: str = "label",
) -> Path:
    """A hub's table of encoded images: a struct of bytes and path, and a label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        None if cell is None else {"bytes": cell, "path": f"{n}.png"}
        for n, cell in enumerate(cells)
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({image: pa.array(rows, kind), label: pa.array(values)}), path)
    return path


def matlab(path: Path, images: Bytes, values: Sequence[int]) -> Path:
    """SVHN's file: X [32, 32, 3, N] and y [N, 1] with 10 for the digit 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digits = np.array([[value or 10] for value in values], dtype=np.uint8)
    savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": digits}, do_compression=True)
    return path
