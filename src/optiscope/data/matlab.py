"""Numeric arrays in MATLAB 5 files, read without trusting any length that the file states.

SciPy's reader is compiled code that a damaged file can crash, which no ``except`` catches. This one
knows full numeric arrays and nothing else: a file is a header of 128 bytes and a list of elements,
each a tag (type, bytes) and data padded to 8 bytes; a compressed element holds another one; an
array is an element that holds its class, dimensions, name and values as elements.
Source: MathWorks, "MAT-File Level 5 File Format".
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optiscope.data.bytes_of import LARGEST
from optiscope.data.errors import BadFile

__all__ = ["read_matlab"]

HEADER = 128
MATRIX, COMPRESSED = 14, 15
STORED = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
"""How values are stored, by type of their element."""
CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
"""What an array holds, by its class: values may be stored in fewer bytes."""
COMPLEX = 0x08
MOST_DIMENSIONS = 8
PEEK = 512
"""Bytes within which an array's name is looked for."""

Order = Literal["<", ">"]


class _Damaged(ValueError):
    """The file contradicts itself."""


def read_matlab(
    path: Path, names: Collection[str], largest: int = LARGEST
) -> dict[str, NDArray[np.generic]]:
    """Real numeric arrays called ``names`` in a MATLAB 5 file; those that it lacks are left out.

    Args:
        path: the file.
        names: which arrays are wanted; others are passed over.
        largest: bytes that an array may take.

    Raises:
        BadFile: not a MATLAB 5 file, damaged, or a wanted array is larger or of another kind.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(largest + 1)
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        if len(content) > largest:
            raise _Damaged(f"it is larger than {largest:,} bytes")
        order = _byte_order(content)
        view = memoryview(content)[HEADER:]
        arrays: dict[str, NDArray[np.generic]] = {}
        for kind, data in _elements(view, order):
            if kind == COMPRESSED:
                if _name(_unpacked(data, PEEK, whole=False), order) not in names:
                    continue
                unpacked = memoryview(_unpacked(data, largest, whole=True))
                kind, data = next(_elements(unpacked, order), (0, memoryview(b"")))
            if kind == MATRIX:
                name, array = _array(data, order, names)
                if array is not None:
                    arrays[name] = array
        return arrays
    except (_Damaged, zlib.error, struct.error) as error:
        raise BadFile(f"{path}: not a readable MATLAB 5 file ({error}): fetch it again") from error


def _byte_order(content: bytes) -> Order:
    mark = content[HEADER - 4 : HEADER]
    if mark == b"\x00\x01IM":
        return "<"
    if mark == b"\x01\x00MI":
        return ">"
    raise _Damaged("its header is another one")


def _unpacked(data: memoryview, largest: int, *, whole: bool) -> bytes:
    """What a compressed element holds: all of it, or the first ``largest`` bytes."""
    stream = zlib.decompressobj()
    content = stream.decompress(data, largest + 1 if whole else largest)
    if whole and len(content) > largest:
        raise _Damaged(f"an array unpacks to more than {largest:,} bytes")
    if whole and not stream.eof:
        raise _Damaged("a compressed array is cut off")
    return content


def _elements(data: memoryview, order: Order) -> Iterator[tuple[int, memoryview]]:
    """Types and data of the elements that follow each other in ``data``.

    Raises:
        _Damaged: an element is longer than what is there.
    """
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise _Damaged("it is cut off")
        first, size = struct.unpack_from(f"{order}II", data, place)
        if first >> 16:  # type, size and up to four bytes of data in the tag
            kind, size, begin, step = first & 0xFFFF, first >> 16, place + 4, 8
            if size > 4:
                raise _Damaged("a small element is too long")
        else:
            kind, begin = first, place + 8
            step = 8 + size + (0 if kind == COMPRESSED else -size % 8)
        if begin + size > len(data):
            raise _Damaged("it is cut off")
        yield kind, data[begin : begin + size]
        place += step


def _name(start: bytes, order: Order) -> str:
    """Name of the array that begins with ``start``; "" where it is no array."""
    if len(start) < 8:
        raise _Damaged("a compressed array is cut off")
    if struct.unpack_from(f"{order}I", start)[0] != MATRIX:
        return ""
    parts = _parts(memoryview(start)[8:], order)
    return "" if len(parts) < 3 else _text(parts[2][1])


def _parts(data: memoryview, order: Order) -> list[tuple[int, memoryview]]:
    """The first four parts of an array that are whole: class, dimensions, name, values."""
    parts: list[tuple[int, memoryview]] = []
    elements = _elements(data, order)
    try:
        while len(parts) < 4:
            parts.append(next(elements))
    except (StopIteration, _Damaged):
        pass
    return parts


def _text(data: memoryview) -> str:
    return data.tobytes().decode("latin-1").rstrip("\x00")


def _array(
    data: memoryview, order: Order, names: Collection[str]
) -> tuple[str, NDArray[Any] | None]:
    """Name and values of an array; None in place of values where the name is not wanted."""
    parts = _parts(data, order)
    name = _text(parts[2][1]) if len(parts) > 2 else ""
    if name not in names:
        return name, None
    if len(parts) < 4 or len(parts[0][1]) < 8:
        raise _Damaged(f"the array {name} is cut off")
    (_, flags), (_, sizes), _, (stored, values) = parts
    bits = struct.unpack_from(f"{order}I", flags)[0]
    held, is_complex = bits & 0xFF, bool((bits >> 8) & COMPLEX)
    if held not in CLASSES or stored not in STORED or is_complex:
        raise _Damaged(f"{name} is not an array of real numbers")
    if len(sizes) % 4 or not 2 <= len(sizes) // 4 <= MOST_DIMENSIONS:
        raise _Damaged(f"{name} has no dimensions")
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    kind = np.dtype(f"{order}{STORED[stored]}")
    if min(shape) < 0 or math.prod(shape) * kind.itemsize != len(values):
        raise _Damaged(f"the values of {name} do not fill its dimensions")
    array = np.frombuffer(values, dtype=kind).reshape(shape, order="F")
    with np.errstate(invalid="ignore"):  # no number that an integer can hold
        return name, array.astype(CLASSES[held], copy=False)
