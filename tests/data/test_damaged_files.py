"""Whatever is done to a file, a reader returns arrays or says in one line what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from file_writers import (
    cifar_pickle,
    cifar_rows,
    encoded,
    idx_bytes,
    labels,
    matlab,
    parquet,
    pixels,
    python2_pickle,
    tar_gz,
    write,
)

from optiscope.data.cifar import read_archive, read_folder
from optiscope.data.errors import BadFile
from optiscope.data.idx import read_idx
from optiscope.data.parquet_images import read_parquet_images
from optiscope.data.svhn import read_svhn
from optiscope.data.text import read_text

IMAGES, LABELS = pixels(3, 3, 32, 32), labels(3)
MUTATIONS = 60
MANY_MUTATIONS = 4_334
"""Times nine readers: 39,000."""


def plain_idx(folder: Path) -> Path:
    return write(folder / "idx", idx_bytes(pixels(5, 4, 3)))


def packed_idx(folder: Path) -> Path:
    return write(folder / "idx.gz", idx_bytes(pixels(5, 4, 3)), packed=True)


def binary(folder: Path) -> Path:
    return write(folder / "data_batch_1.bin", cifar_rows(IMAGES, LABELS))


def python2(folder: Path) -> Path:
    return write(folder / "data_batch_1", python2_pickle(IMAGES, b"labels", LABELS)[:700])


def python3(folder: Path) -> Path:
    return write(folder / "data_batch_1", cifar_pickle(IMAGES[:1], "labels", LABELS[:1]))


def archive(folder: Path) -> Path:
    return tar_gz(folder / "cifar.tar.gz", {"f/one.bin": cifar_rows(IMAGES, LABELS)})


def table(folder: Path) -> Path:
    return parquet(folder / "a.parquet", [encoded(one) for one in IMAGES], LABELS)


def house_numbers(folder: Path) -> Path:
    return matlab(folder / "train_32x32.mat", IMAGES, LABELS)


def prose(folder: Path) -> Path:
    return write(folder / "a.txt.gz", "Bezukhóv and Rostóv\r\n".encode() * 20, packed=True)


READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "IDX": (plain_idx, lambda path: read_idx(path, 3)),
    "packed IDX": (packed_idx, lambda path: read_idx(path, 3)),
    "binary batch": (binary, lambda path: read_folder([path], 1)),
    "Python 2 batch": (python2, lambda path: read_folder([path], 1)),
    "Python 3 batch": (python3, lambda path: read_folder([path], 1)),
    "archive": (archive, lambda path: read_archive(path, [["one.bin"]], 1)),
    "parquet": (table, lambda path: read_parquet_images([path], (3, 32, 32))),
    "MATLAB": (house_numbers, read_svhn),
    "text": (prose, read_text),
}


def mutated(content: bytes, draws: np.random.Generator) -> bytes:
    """Cut short, a few bytes changed, a piece repeated, or a piece removed."""
    array = bytearray(content)
    first, last = sorted(int(place) for place in draws.integers(0, len(array), 2))
    kind = int(draws.integers(5))
    if kind == 0:
        return bytes(array[:first])
    if kind == 1:
        return bytes(array[:last] + array[first:])
    if kind == 2:
        return bytes(array[:first] + array[last:])
    head = min(len(array), 400) if kind == 3 else len(array)  # headers deserve more blows
    for place in draws.integers(0, head, 3):
        array[place] = draws.integers(256)
    return bytes(array)


@pytest.mark.parametrize(("make", "read"), READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize(
    ("seed", "mutations"),
    [(7, MUTATIONS), pytest.param(8, MANY_MUTATIONS, marks=pytest.mark.slow)],
    ids=["sample", "all"],
)
@pytest.mark.filterwarnings("ignore")
def test_damage_never_escapes_as_another_error(
    tmp_path: Path,
    make: Callable[[Path], Path],
    read: Callable[[Path], object],
    seed: int,
    mutations: int,
) -> None:
    path = make(tmp_path)
    content, draws = path.read_bytes(), np.random.default_rng(seed)
    refused = 0
    for _ in range(mutations):
        path.write_bytes(mutated(content, draws))
        said = refusal(read, path)
        refused += said is not None
        assert said is None or (str(path) in said and "\n" not in said)
    assert refused > mutations // 4


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    try:
        read(path)
    except BadFile as error:
        return str(error)
    return None


def test_a_packed_archive_with_any_bit_turned_is_refused(tmp_path: Path) -> None:
    """Its check sum stands behind the last member, where nothing else needs to be read."""
    flat = np.full((3, 3, 32, 32), 7, dtype=np.uint8)
    path = tar_gz(tmp_path / "cifar.tar.gz", {"f/one.bin": cifar_rows(flat, LABELS)})
    whole = path.read_bytes()
    turned = []
    for place in range(len(whole) // 8, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            images, found = read_archive(path, [["one.bin"]], 1)[0]
        except BadFile:
            continue
        turned.append(np.array_equal(images, flat) and found.tolist() == LABELS)
    assert all(turned)
