from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_writers import encoded, labels, parquet, pixels

from optiscope.data.errors import BadFile
from optiscope.data.parquet_images import read_parquet_images

COLOUR, GREY = pixels(5, 3, 8, 6), pixels(5, 1, 8, 6)


@pytest.mark.parametrize(("image", "label"), [("img", "label"), ("image", "fine_label")])
@pytest.mark.parametrize("images", [COLOUR, GREY], ids=["colour", "grey"])
def test_png_tables_are_read_exactly_and_in_order(
    tmp_path: Path, images: np.ndarray, image: str, label: str
) -> None:
    cells = [encoded(one) for one in images]
    paths = [
        parquet(tmp_path / "b.parquet", cells[:3], labels(5)[:3], image=image, label=label),
        parquet(tmp_path / "a.parquet", cells[3:], labels(5)[3:], image=image, label=label),
    ]
    found, values = read_parquet_images(paths, images.shape[1:])
    np.testing.assert_array_equal(found, images)
    assert values.tolist() == labels(5)
    assert values.dtype == np.int64


def test_plain_bytes_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = {"image": pa.array([encoded(one) for one in COLOUR], pa.binary()), "label": labels(5)}
    pq.write_table(pa.table(table), path)
    np.testing.assert_array_equal(read_parquet_images([path], (3, 8, 6))[0], COLOUR)


def test_jpeg_is_decoded_as_pillow_does(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(0, 96, 2, dtype=np.uint8).reshape(8, 6), (1, 3, 1, 1))
    path = parquet(tmp_path / "a.parquet", [encoded(smooth[0], "JPEG")], [0])
    found, _ = read_parquet_images([path], (3, 8, 6))
    assert np.abs(found.astype(int) - smooth).max() < 12  # JPEG loses a little


def said(tmp_path: Path, path: Path, shape: tuple[int, int, int] = (3, 8, 6)) -> str:
    with pytest.raises(BadFile) as raised:
        read_parquet_images([path], shape)
    message = str(raised.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_damage_is_one_line(tmp_path: Path) -> None:
    cells = [encoded(one) for one in COLOUR]
    good = parquet(tmp_path / "good.parquet", cells, labels(5))
    assert "row 0: expected an image of 9 x 6 pixels, got 8 x 6" in said(tmp_path, good, (3, 9, 6))

    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:-20])
    assert "not a readable parquet file" in said(tmp_path, cut)
    cut.write_bytes(b"")
    assert "not a readable parquet file" in said(tmp_path, cut)

    broken = parquet(
        tmp_path / "broken.parquet", [*cells[:2], cells[2][:-30], *cells[3:]], labels(5)
    )
    assert "row 2: not a readable image" in said(tmp_path, broken)
    text = parquet(tmp_path / "text.parquet", [b"hello"], [1])
    assert "row 0: not a readable image" in said(tmp_path, text)
    empty = parquet(tmp_path / "empty.parquet", [None, cells[0]], [1, 2])
    assert "1 empty images" in said(tmp_path, empty)

    other = parquet(tmp_path / "other.parquet", cells, labels(5), image="picture")
    assert "expected columns img or image and label" in said(tmp_path, other)
    assert "picture" in said(tmp_path, other)
    words = tmp_path / "words.parquet"
    pq.write_table(pa.table({"img": cells, "label": ["cat"] * 5}), words)
    assert "expected integer labels" in said(tmp_path, words)
    struct = tmp_path / "struct.parquet"
    pq.write_table(pa.table({"img": [{"path": "a.png"}], "label": [1]}), struct)
    assert "no field 'bytes'" in said(tmp_path, struct)
    numbers = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"img": [1, 2], "label": [1, 2]}), numbers)
    assert "expected encoded images" in said(tmp_path, numbers)
