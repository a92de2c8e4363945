"""MATLAB 5 files: the same arrays as SciPy reads, and a line for every damaged one."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from optiscope.data.errors import BadFile
from optiscope.data.matlab import read_matlab
from optiscope.data.svhn import read_svhn

KINDS = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
SEGFAULT = Path(__file__).with_name("svhn_segfault.mat")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_every_kind_are_those_that_were_written(
    tmp_path: Path, kind: str, packed: bool
) -> None:
    draws = np.random.default_rng(1).integers(0, 100, (3, 4, 5, 2))
    arrays = {"X": draws.astype(kind), "y": draws[0, 0, :, :1].astype(kind), "z": np.ones(3)}
    path = tmp_path / "a.mat"
    savemat(path, arrays, do_compression=packed)
    read = read_matlab(path, ("X", "y", "none"))
    assert sorted(read) == ["X", "y"]
    for name, array in read.items():
        assert array.dtype == np.dtype(kind)
        np.testing.assert_array_equal(array, arrays[name])


def test_a_file_that_crashes_scipy_is_one_line() -> None:
    with pytest.raises(BadFile, match="fetch it again") as raised:
        read_svhn(SEGFAULT)
    assert "\n" not in str(raised.value)


def _element(kind: int, data: bytes) -> bytes:
    return np.array([kind, len(data)], "<u4").tobytes() + data + bytes(-len(data) % 8)


def _compressed(data: bytes) -> bytes:
    return np.array([15, len(data)], "<u4").tobytes() + data


def _file(*elements: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"".join(elements)


def _array(
    values: bytes, shape: tuple[int, ...], *, held: int = 9, stored: int = 2, name: bytes = b"X"
) -> bytes:
    parts = (
        _element(6, np.array([held, 0], "<u4").tobytes()),
        _element(5, np.array(shape, "<i4").tobytes()),
        _element(1, name),
        _element(stored, values),
    )
    return _element(14, b"".join(parts))


BOMB = zlib.compress(_array(bytes(50_000_000), (50_000_000, 1)))
DAMAGED = {
    "unpacks to more than allowed": _file(_compressed(BOMB)),
    "dimensions beyond the values": _file(_array(bytes(4), (2**31 - 1, 2**31 - 1))),
    "negative dimensions": _file(_array(bytes(4), (-2, -2))),
    "no dimensions": _file(_array(bytes(4), ())),
    "many dimensions": _file(_array(bytes(1), (1,) * 1000)),
    "a cell": _file(_array(bytes(4), (2, 2), held=1)),
    "complex": _file(_array(bytes(4), (2, 2), held=9 | 0x0800)),
    "values of an unknown type": _file(_array(bytes(4), (2, 2), stored=99)),
    "values not whole": _file(_array(bytes(7), (1, 1), stored=9)),
    "longer than the file": _file(np.array([14, 2**32 - 1], "<u4").tobytes()),
    "a small element of 60,000 bytes": _file(np.array([60_000 << 16 | 1, 0], "<u4").tobytes()),
    "half a tag": _file(b"abc"),
    "zlib of nothing": _file(_compressed(b"")),
    "zlib cut off": _file(_compressed(zlib.compress(_array(bytes(100), (100, 1)))[:-6])),
    "MATLAB 7.3": b"\x89HDF\r\n\x1a\n" + bytes(200),
    "empty": b"",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_every_kind_of_damage_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(BadFile, match="MATLAB 5 file") as raised:
        read_matlab(path, ("X",), largest=10**6)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_not_wanted_is_passed_over(tmp_path: Path) -> None:
    other = _array(bytes(4), (9, 9), name=b"Z")
    path = tmp_path / "a.mat"
    path.write_bytes(_file(other, _compressed(zlib.compress(other)), _array(b"abcd", (2, 2))))
    assert read_matlab(path, ("X",))["X"].tolist() == [[97, 99], [98, 100]]
    path.write_bytes(_file())
    assert read_matlab(path, ("X",)) == {}
