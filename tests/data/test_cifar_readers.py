from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from file_writers import (
    cifar_pickle,
    cifar_rows,
    labels,
    pixels,
    python2_pickle,
    tar_gz,
    write,
)

from optiscope.data.cifar import parse_binary, parse_pickle, read_archive, read_folder
from optiscope.data.errors import BadFile

IMAGES = pixels(6, 3, 32, 32)


@pytest.mark.parametrize("coarse", [False, True])
def test_binary_rows(coarse: bool) -> None:
    fine = labels(6, 100)
    columns = [[1] * 6, fine] if coarse else [fine]
    images, found = parse_binary(cifar_rows(IMAGES, *columns), len(columns), "file")
    np.testing.assert_array_equal(images, IMAGES)
    assert found.tolist() == fine
    assert found.dtype == np.int64


@pytest.mark.parametrize("key", ["labels", "fine_labels"])
@pytest.mark.parametrize("writer", ["python 2", "python 3"])
def test_pickled_batches(key: str, writer: str) -> None:
    content = (
        python2_pickle(IMAGES, key.encode(), labels(6))
        if writer == "python 2"
        else cifar_pickle(IMAGES, key, labels(6))
    )
    images, found = parse_pickle(content, "file")
    np.testing.assert_array_equal(images, IMAGES)
    assert found.tolist() == labels(6)


def test_batches_are_joined_in_the_order_given(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / name, cifar_rows(IMAGES[rows], labels(6)[rows]))
        for name, rows in (("b.bin", slice(0, 4)), ("a.bin", slice(4, 6)))
    ]
    images, found = read_folder(paths, 1)
    np.testing.assert_array_equal(images, IMAGES)
    assert found.tolist() == labels(6)


@pytest.mark.parametrize("form", ["binary", "pickled"])
def test_archives_are_read_without_unpacking(tmp_path: Path, form: str) -> None:
    end = ".bin" if form == "binary" else ""

    def batch(rows: slice) -> bytes:
        if form == "binary":
            return cifar_rows(IMAGES[rows], labels(6)[rows])
        return python2_pickle(IMAGES[rows], b"labels", labels(6)[rows])

    path = tar_gz(
        tmp_path / "cifar.tar.gz",
        {
            "folder/readme.html": b"hello",
            f"folder/test{end}": batch(slice(4, 6)),
            f"folder/two{end}": batch(slice(2, 4)),
            f"../../one{end}": batch(slice(0, 2)),
        },
    )
    train, test = read_archive(path, [[f"one{end}", f"two{end}"], [f"test{end}"]], 1)
    np.testing.assert_array_equal(train[0], IMAGES[:4])
    np.testing.assert_array_equal(test[0], IMAGES[4:])
    assert [*train[1], *test[1]] == labels(6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cifar.tar.gz"]


def test_damaged_archives_are_one_line(tmp_path: Path) -> None:
    path = tar_gz(tmp_path / "cifar.tar.gz", {"f/one.bin": cifar_rows(IMAGES, labels(6))})
    with pytest.raises(BadFile, match=r"archive lacks two\.bin: fetch it again"):
        read_archive(path, [["one.bin"], ["two.bin"]], 1)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(BadFile, match="damaged archive"):
        read_archive(path, [["one.bin"]], 1)
    path.write_bytes(b"not an archive")
    with pytest.raises(BadFile, match="damaged archive"):
        read_archive(path, [["one.bin"]], 1)


@pytest.mark.parametrize("content", [b"", cifar_rows(IMAGES, labels(6))[:-1]])
def test_truncated_rows_are_one_line(content: bytes) -> None:
    with pytest.raises(BadFile, match=r"^file: expected a multiple of 3,073 bytes, got \d"):
        parse_binary(content, 1, "file")


FLAT = IMAGES.reshape(6, -1)
WRONG = {
    "no dictionary": [1, 2],
    "no data": {"labels": labels(6)},
    "no labels": {"data": FLAT},
    "too few labels": {"data": FLAT, "labels": labels(5)},
    "labels in words": {"data": FLAT, "labels": ["cat"] * 6},
    "another size": {"data": FLAT[:, :100], "labels": labels(6)},
    "another type": {"data": FLAT.astype(np.int64), "labels": labels(6)},
    "another rank": {"data": IMAGES, "labels": labels(6)},
}


@pytest.mark.parametrize("batch", WRONG.values(), ids=WRONG.keys())
def test_pickles_of_something_else_are_one_line(batch: object) -> None:
    with pytest.raises(
        BadFile, match=r"^file: expected data uint8 \(N, 3072\) .*: fetch it again$"
    ):
        parse_pickle(pickle.dumps(batch), "file")
