"""IDX: the array format of MNIST and its relatives, plain or gzipped.

Two zero bytes, a byte for the type, a byte for the number of dimensions, the dimensions as
big-endian 32-bit integers, then the values in C order. Source: http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optiscope.data.bytes_of import read_bytes
from optiscope.data.errors import BadFile

__all__ = ["read_idx"]

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Array of unsigned bytes with ``ndim`` dimensions held in an IDX file.

    Raises:
        BadFile: not an IDX file of unsigned bytes with ``ndim`` dimensions, or its length differs
            from what its header announces.
    """
    content = read_bytes(path)
    expected_magic = bytes((0, 0, UNSIGNED_BYTE, ndim))
    header = 4 + 4 * ndim
    if len(content) < header or content[:4] != expected_magic:
        raise BadFile(
            f"{path}: expected an IDX file that starts with {expected_magic.hex(' ')}, got "
            f"{content[:4].hex(' ') or 'an empty file'}: fetch it again"
        )
    shape = struct.unpack(f">{ndim}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise BadFile(
            f"{path}: header announces {' x '.join(map(str, shape))} = {math.prod(shape):,} bytes, "
            f"got {len(content) - header:,}: the file is damaged, fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
