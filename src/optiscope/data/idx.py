"""IDX: the array format of MNIST and its relatives, plain or gzipped.

Two zero bytes, a byte for the type, a byte for the number of dimensions, the dimensions as
big-endian 32-bit integers, then the values in C order. Source: http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optiscope.data.bytes_of import LARGEST, open_unpacked
from optiscope.data.errors import BadFile

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["read_idx"]

UNSIGNED_BYTE = 0x08
BLOCK = 2**20


def read_idx(
    path: Path, ndim: int, largest: int = LARGEST, state: _Hash | None = None
) -> NDArray[np.uint8]:
    """Array of unsigned bytes with ``ndim`` dimensions held in an IDX file.

    No more is unpacked than the header announces. ``state`` is updated with all of the file.

    Raises:
        BadFile: not an IDX file of unsigned bytes with ``ndim`` dimensions, its length differs
            from what its header announces, or that is more than ``largest`` bytes.
    """
    expected_magic = bytes((0, 0, UNSIGNED_BYTE, ndim))
    header = 4 + 4 * ndim
    with open_unpacked(path, header + largest + BLOCK, state) as stream:
        head = stream.read(header)
        if len(head) < header or head[:4] != expected_magic:
            raise BadFile(
                f"{path}: expected an IDX file that starts with {expected_magic.hex(' ')}, got "
                f"{head[:4].hex(' ') or 'an empty file'}: fetch it again"
            )
        shape = struct.unpack(f">{ndim}I", head[4:])
        size = math.prod(shape)
        announced = f"header announces {' x '.join(map(str, shape))} = {size:,} bytes"
        if size > largest:
            raise BadFile(f"{path}: {announced}, expected at most {largest:,}: fetch it again")
        blocks, received = [], 0
        while received <= size and (block := stream.read(BLOCK)):
            blocks.append(block)
            received += len(block)
    if received != size:
        raise BadFile(
            f"{path}: {announced}, got {received:,}{' or more' if received > size else ''}: "
            "the file is damaged, fetch it again"
        )
    return np.frombuffer(b"".join(blocks), dtype=np.uint8).reshape(shape)
