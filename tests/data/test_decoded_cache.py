from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_writers import pixels, write

from optiscope.data import decoded_cache
from optiscope.data.decoded_cache import decoded

Arrays = dict[str, Any]


class Decoder:
    """Decodes to ``arrays`` and counts how often."""

    def __init__(self, arrays: Arrays | None = None) -> None:
        self.calls = 0
        self.arrays = arrays or {"images": pixels(4, 3, 2), "labels": np.arange(4)}

    def __call__(self) -> Arrays:
        self.calls += 1
        return self.arrays


def same(a: Arrays, b: Arrays) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source.parquet", b"encoded")


def entry_of(cache_dir: Path) -> Path:
    (entry,) = [path for path in cache_dir.iterdir() if not path.name.startswith(".")]
    return entry


def test_the_second_time_nothing_is_decoded(source: Path) -> None:
    decode = Decoder()
    first, second = (decoded("a-1", [source], decode) for _ in range(2))
    assert decode.calls == 1
    assert same(first, decode.arrays)
    assert same(second, decode.arrays)


def test_the_key_is_the_content_and_the_version(source: Path, tmp_path: Path) -> None:
    decode = Decoder()
    decoded("a-1", [source], decode)
    os.utime(source, (0, 0))
    moved = source.rename(tmp_path / "elsewhere")
    decoded("a-1", [moved], decode)
    assert decode.calls == 1
    decoded("a-2", [moved], decode)
    assert decode.calls == 2
    decoded("a-1", [moved, moved], decode)
    assert decode.calls == 3
    write(moved, b"Encoded")
    decoded("a-1", [moved], decode)
    assert decode.calls == 4


@pytest.mark.parametrize("damage", ["truncated", "edited", "manifest", "missing", "pickled"])
def test_a_damaged_entry_is_replaced(source: Path, cache_dir: Path, damage: str) -> None:
    decode = Decoder()
    decoded("a-1", [source], decode)
    entry = entry_of(cache_dir)
    images = entry / "images.npy"
    content = images.read_bytes()
    if damage == "truncated":
        images.write_bytes(content[:-3])
    elif damage == "edited":
        images.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "manifest":
        (entry / "manifest.json").write_text("[1, 2")
    elif damage == "missing":
        images.unlink()
    else:
        np.save(images, np.array([os.system], dtype=object), allow_pickle=True)
    assert same(decoded("a-1", [source], decode), decode.arrays)
    assert decode.calls == 2
    assert same(decoded("a-1", [source], decode), decode.arrays)
    assert decode.calls == 2


def test_a_folder_that_cannot_be_written_does_not_stop_loading(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTISCOPE_CACHE_DIR", str(write(tmp_path / "file", b"") / "below"))
    decode = Decoder()
    with pytest.warns(UserWarning, match=r"decoded data were not kept in .*OPTISCOPE_CACHE_DIR"):
        assert same(decoded("a-1", [source], decode), decode.arrays)


def test_a_full_disk_leaves_nothing_behind(
    source: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: Any, **__: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded_cache.np, "save", full)
    decode = Decoder()
    with pytest.warns(UserWarning, match=r"No space left on device"):
        assert same(decoded("a-1", [source], decode), decode.arrays)
    assert list(cache_dir.iterdir()) == []


def test_drafts_of_killed_processes_are_swept_after_a_day(source: Path, cache_dir: Path) -> None:
    old, young = cache_dir / ".draft-old", cache_dir / ".draft-young"
    for draft in (old, young):
        write(draft / "images.npy", b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    decoded("a-1", [source], Decoder())
    assert not old.exists()
    assert young.exists()


def decode_slowly(source: Path, cache: Path, barrier: Any, queue: Any) -> None:
    os.environ["OPTISCOPE_CACHE_DIR"] = str(cache)

    def decode() -> Arrays:
        barrier.wait(60)  # both have found the cache empty
        return {"images": pixels(50, 3, 32, 32), "labels": np.arange(50)}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arrays = decoded("a-1", [source], decode)
    queue.put(int(arrays["images"].astype(int).sum()))


def test_two_processes_decoding_at_once_leave_one_whole_entry(
    source: Path, cache_dir: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    arguments = (source, cache_dir, barrier, queue)
    workers = [context.Process(target=decode_slowly, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    sums = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    expected = {"images": pixels(50, 3, 32, 32), "labels": np.arange(50)}
    assert sums == [int(expected["images"].astype(int).sum())] * 2
    decode = Decoder()
    assert same(decoded("a-1", [source], decode), expected)
    assert decode.calls == 0
    assert entry_of(cache_dir).name.startswith("a-1-")
    assert not list(cache_dir.glob(".*"))


def test_a_draft_that_another_process_finishes_meanwhile_does_not_matter(
    source: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = cache_dir / ".draft-gone"
    glob = Path.glob

    def with_gone(folder: Path, pattern: str) -> Any:
        return [*glob(folder, pattern), gone]

    monkeypatch.setattr(Path, "glob", with_gone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded("a-1", [source], Decoder())
    monkeypatch.undo()
    assert entry_of(cache_dir).name.startswith("a-1-")
