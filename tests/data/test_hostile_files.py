"""Files made to crash their reader, to fill the memory, or to start something."""

from __future__ import annotations

import gzip
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_writers import encoded, parquet, pixels

from optiscope.data import isolated
from optiscope.data.bytes_of import read_bytes
from optiscope.data.cifar import read_archive, read_folder
from optiscope.data.encoded_image import LARGEST_IMAGE
from optiscope.data.errors import BadFile, DataError
from optiscope.data.idx import read_idx
from optiscope.data.image_folder import read_image_folder
from optiscope.data.isolated import read_isolated
from optiscope.data.located import digest_of
from optiscope.data.parquet_images import read_parquet_images
from optiscope.data.text import read_text

HUGE = 3 * 2**30
SHAPE = (3, 32, 32)
ALLOWED = 200 * 2**20
"""Bytes of Python's memory that a refusal may take."""


@pytest.fixture
def few_bytes() -> Iterator[None]:
    """The test takes little memory; a bomb would take gigabytes."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < ALLOWED


def bomb(path: Path, head: bytes = b"", size: int = HUGE, fill: bytes = b"\0") -> Path:
    """A gzipped file of a few megabytes that unpacks to ``size`` bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = packer.compress(head + fill * 2**20) + packer.flush(zlib.Z_FULL_FLUSH)
    more = zlib.compressobj(9, zlib.DEFLATED, -15)
    repeated = more.compress(fill * 2**20) + more.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(block + repeated * (size // 2**20))
    return path


@pytest.mark.usefixtures("few_bytes")
def test_a_bomb_behind_a_small_header_is_refused(tmp_path: Path) -> None:
    head = b"\0\0\x08\x03" + struct.pack(">3I", 10, 28, 28)
    path = bomb(tmp_path / "train-images-idx3-ubyte.gz", head)
    assert path.stat().st_size < 8 * 2**20
    with pytest.raises(BadFile, match=r"announces 10 x 28 x 28 = 7,840 bytes, got .* or more"):
        read_idx(path, 3)


@pytest.mark.usefixtures("few_bytes")
@pytest.mark.parametrize("sides", [(2**32 - 1,) * 3, (4_000_000, 28, 28)])
def test_a_header_that_announces_too_much_is_refused(
    tmp_path: Path, sides: tuple[int, ...]
) -> None:
    path = bomb(tmp_path / "a.gz", b"\0\0\x08\x03" + struct.pack(">3I", *sides))
    with pytest.raises(BadFile, match="expected at most 47,040,000"):
        read_idx(path, 3, largest=60_000 * 28 * 28)
    with pytest.raises(BadFile, match="expected at most 536,870,912"):
        read_idx(path, 3)


@pytest.mark.usefixtures("few_bytes")
def test_a_text_or_batch_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.txt.gz", fill=b"a")
    for read in (
        lambda: read_text(path, 2**20),
        lambda: read_bytes(path, 2**20),
        lambda: digest_of(path, "sha256", unpacked=True, largest=2**20),
    ):
        with pytest.raises(BadFile, match="expected at most 1,048,576 bytes, it unpacks to more"):
            read()


def test_many_members_of_gzip_are_counted_together(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"ab" * 1000) * 100)
    assert len(read_bytes(path, 200_000)) == 200_000
    with pytest.raises(BadFile, match="unpacks to more"):
        read_bytes(path, 199_999)


@pytest.mark.usefixtures("few_bytes")
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, kind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and further headers are read whole by tarfile, whatever size they announce."""
    monkeypatch.setattr("optiscope.data.cifar.LARGEST", 50 * 2**20)
    member = tarfile.TarInfo("data_batch_1.bin")
    member.type, member.size = kind, HUGE
    path = bomb(tmp_path / "cifar.tar.gz", member.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(BadFile, match=r"unpacks to more|archive lacks|damaged archive"):
        read_archive(path, [["data_batch_1.bin"]], 1)


@pytest.mark.parametrize("target", ["/dev/zero", "."])
def test_only_regular_files_are_read(tmp_path: Path, target: str) -> None:
    path = tmp_path / "a"
    path.symlink_to(target)
    for read in (read_text, read_bytes, lambda p: read_idx(p, 3), lambda p: read_folder([p], 1)):
        with pytest.raises(BadFile, match="expected a file"):
            read(path)


def png(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that announces ``width`` x ``height`` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


BAD_IMAGES = {
    "announces a lot": (png(9_000, 9_000), "9000 x 9000"),
    "more than Pillow bears": (png(2**31 - 1, 2**31 - 1), "pixels|not a readable image"),
    "a long strip": (png(1, LARGEST_IMAGE), "cannot scale|not a readable image"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) print\n", "readable"),
    "another format": (b"BM" + bytes(100), "not a readable image"),
}


@pytest.mark.usefixtures("few_bytes")
@pytest.mark.parametrize(("content", "said"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
@pytest.mark.filterwarnings("error")
def test_an_image_is_judged_by_its_header(tmp_path: Path, content: bytes, said: str) -> None:
    folder = tmp_path / "train" / "n01"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(content)
    with pytest.raises(BadFile, match=said) as raised:
        read_image_folder(tmp_path / "train").decode([0])
    assert "\n" not in str(raised.value)
    table = parquet(tmp_path / "a.parquet", [content], [0])
    with pytest.raises(BadFile, match=r"expected an image of 32 x 32|not a readable image"):
        read_parquet_images([table], SHAPE)


def test_columns_whose_names_are_no_text_are_one_line() -> None:
    with pytest.raises(BadFile, match="not a readable parquet file") as raised:
        read_parquet_images([Path(__file__).with_name("parquet_unicode.parquet")], SHAPE)
    assert "\n" not in str(raised.value)


def test_a_table_of_more_rows_than_the_data_set_has_is_refused(tmp_path: Path) -> None:
    cell = encoded(pixels(1, *SHAPE)[0])
    table = parquet(tmp_path / "a.parquet", [cell] * 20, [0] * 20)
    with pytest.raises(BadFile, match="announces 20 rows, expected at most 19"):
        read_parquet_images([table], SHAPE, 19)
    with pytest.raises(BadFile, match="announces 20 rows, expected at most 10"):
        read_parquet_images([table, table], SHAPE, 30)
    assert len(read_parquet_images([table, table], SHAPE, 40)[1]) == 40


def test_a_table_that_announces_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value, repeated: a few kilobytes on disk."""
    monkeypatch.setattr("optiscope.data.parquet_images.LARGEST", 10**6)
    table = pa.table({"img": pa.array([bytes(10**5)] * 20, pa.binary()), "label": [0] * 20})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 10**4
    with pytest.raises(BadFile, match=r"announces 2,0.* bytes of images, expected at most 1,000,0"):
        read_parquet_images([tmp_path / "a.parquet"], SHAPE, 20)


def test_names_of_columns_are_quoted_in_part(tmp_path: Path) -> None:
    names = [f"column{'x' * 100}{n}" for n in range(100)]
    pq.write_table(pa.table({name: [1] for name in names}), tmp_path / "a.parquet")
    with pytest.raises(BadFile, match="expected columns img or image") as raised:
        read_parquet_images([tmp_path / "a.parquet"], SHAPE)
    assert len(str(raised.value)) < 400


DEATHS = {
    "crash": ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed the process .*SIGSEGV"),
    "abort": ("os.abort()", "crashed the process .*SIGABRT"),
    "exit": ("os._exit(7)", "could not be read .*exit status 7"),
    "error": ("1 / 0", "could not be read .*division by zero"),
    "memory": ("bytearray(64 * 2**30)", "took more memory"),
    "time": ("import time; time.sleep(60)", "did not end in 3 s"),
    "line": ("raise BadFile('a.parquet: of this kind')", "^a.parquet: of this kind$"),
}


@pytest.mark.parametrize(("body", "said"), DEATHS.values(), ids=DEATHS.keys())
def test_whatever_happens_to_a_child_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    package = tmp_path / "child"
    package.mkdir()
    (package / "sitecustomize.py").write_text(
        "import os, signal\n"
        "from optiscope.data import isolated\n"
        "from optiscope.data.errors import BadFile\n\n\n"
        f"def read(paths):\n    {body}\n\n\n"
        "isolated.READERS = {'bad': lambda: read}\n"
    )
    monkeypatch.syspath_prepend(package)
    if body.startswith("import time"):
        monkeypatch.setattr(isolated, "TIMEOUT", 3.0)
    with pytest.raises(DataError, match=said) as raised:
        read_isolated("bad", {"train": [tmp_path / "a.parquet"]}, {}, 2**20)
    assert "\n" not in str(raised.value)
    assert "a.parquet" in str(raised.value)


def test_a_child_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pixels(1, *SHAPE)
    table = parquet(tmp_path / "a.parquet", [encoded(image[0])], [3])
    (tmp_path / "pandas.py").write_text("import os; os._exit(9)")
    (tmp_path / "json.py").write_text("import os; os._exit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    arguments = {"shape": SHAPE, "most_rows": {"train": 1}}
    arrays = read_isolated("parquet_images", {"train": [table]}, arguments, 2**20)
    np.testing.assert_array_equal(arrays["train_images"], image)
    assert arrays["train_labels"].tolist() == [3]
