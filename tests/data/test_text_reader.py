from __future__ import annotations

from pathlib import Path

import pytest
from file_writers import write

from optiscope.data.errors import BadFile, MissingData
from optiscope.data.load import load_text
from optiscope.data.text import read_text


@pytest.mark.parametrize("packed", [False, True])
def test_lines_end_in_one_newline_and_the_mark_goes(tmp_path: Path, packed: bool) -> None:
    content = b"\xef\xbb\xbfBezukh\xc3\xb3v\r\nand\rPeace\n"
    assert read_text(write(tmp_path / "a.txt", content, packed=packed)) == "Bezukhóv\nand\nPeace\n"


@pytest.mark.parametrize(
    "place", ["tolstoi/war_and_peace.txt", "tolstoi/2600-0.txt.gz", "war_and_peace.txt.gz"]
)
def test_it_is_found_where_people_have_it(tmp_path: Path, place: str) -> None:
    write(tmp_path / place, b"Well, Prince", packed=place.endswith(".gz"))
    assert load_text("tolstoi", tmp_path) == "Well, Prince"


def test_errors_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"expected UTF-8 text, got byte 0xff at position 2:"):
        read_text(write(tmp_path / "a.txt", b"ab\xff"))
    with pytest.raises(BadFile, match="got an empty file"):
        read_text(write(tmp_path / "a.txt", b""))
    with pytest.raises(MissingData, match=r"data set tolstoi not found in .*data fetch tolstoi"):
        load_text("tolstoi", tmp_path)
    with pytest.raises(ValueError, match="'mnist' is not a text"):
        load_text("mnist", tmp_path)
