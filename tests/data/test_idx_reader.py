from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from file_writers import idx_bytes, pixels, write

from optiscope.data.errors import BadFile
from optiscope.data.idx import read_idx


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(7,), (5, 4, 3)])
def test_reads_what_was_written(tmp_path: Path, shape: tuple[int, ...], packed: bool) -> None:
    array = pixels(*shape)
    path = write(tmp_path / "file", idx_bytes(array), packed=packed)
    np.testing.assert_array_equal(read_idx(path, len(shape)), array)


GOOD = idx_bytes(pixels(5, 4, 3))
DAMAGED = {
    "empty": (b"", "an empty file"),
    "another format": (b"\x89PNG" + GOOD[4:], "89 50 4e 47"),
    "other dimensions": (idx_bytes(pixels(5)), "00 00 08 01"),
    "floats": (b"\x00\x00\x0d\x03" + GOOD[4:], "00 00 0d 03"),
    "header only in part": (GOOD[:9], "starts with 00 00 08 03"),
    "truncated": (GOOD[:-1], "5 x 4 x 3 = 60 bytes, got 59"),
    "too long": (GOOD + b"x", "got 61"),
    "hand-edited count": (GOOD[:7] + b"\x06" + GOOD[8:], "6 x 4 x 3 = 72 bytes, got 60"),
}


@pytest.mark.parametrize(("content", "said"), DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_one_line(tmp_path: Path, content: bytes, said: str, packed: bool) -> None:
    path = write(tmp_path / "file", content, packed=packed)
    with pytest.raises(BadFile, match=said.replace("(", r"\(")) as raised:
        read_idx(path, 3)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_truncated_gzip_stream_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "file.gz", GOOD, packed=True)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(BadFile, match="damaged gzip stream"):
        read_idx(path, 3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot be read"):
        read_idx(tmp_path / "absent", 3)
