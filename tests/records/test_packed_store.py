"""Packed records read as the folders they were made of, and are never in neither place."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from record_examples import run, trial

from optiscope.records import DamagedRecord, Run, RunStore, Status, StoreError, compact, unpack
from optiscope.records import packed_store as packed_module

COUNT = 9


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "runs")
    for seed in range(COUNT):
        store.write(run(trial(seed=seed)))
    return store


def content(store: RunStore) -> dict[str, tuple[bytes, bytes]]:
    """Bytes of every record, wherever it is."""
    store = RunStore(store.root)
    found = {}
    for trial_hash in store.hashes():
        loose = isinstance(store.loose(trial_hash), Run)
        record = store.record_bytes(trial_hash, loose=loose)
        found[trial_hash] = (record.run, record.metrics)
    return found


def names(store: RunStore) -> list[str]:
    return sorted(p.name for p in store.root.iterdir())


def test_packing_makes_two_files_and_loses_no_byte(store: RunStore) -> None:
    before, runs = content(store), [repr(r) for r in store.scan(metrics=True)]
    done = compact(store)
    assert (done.moved, done.packed, done.loose) == (COUNT, COUNT, 0)
    assert names(store) == ["segments"]
    files = sorted(store.packed.folder.iterdir())
    assert len(files) == 2
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(file.name.split(".")[0])
    for again in (store, RunStore(store.root)):
        assert content(again) == before
        assert [repr(r) for r in again.scan(metrics=True)] == runs
        assert again.read(trial(seed=3).hash, metrics=False).metrics == ()
        assert again.read(trial(seed=99).hash) is None
    assert compact(store) == done.__class__(0, COUNT, 0, done.segments)


def test_undoing_gives_the_same_folders(store: RunStore) -> None:
    before = {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file()}
    compact(store)
    done = unpack(store)
    assert (done.moved, done.packed, done.loose) == (COUNT, 0, COUNT)
    assert {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file()} == before


def test_other_programs_read_flat_columns(store: RunStore) -> None:
    path = compact(store).segments[0]
    table = pq.read_table(path).to_pydict()
    assert sorted(table["seed"]) == list(range(COUNT))
    assert set(table["status"]) == {"diverged"}
    assert set(table["final_valid_accuracy"]) == {0.9}
    assert set(table["training_wall_seconds"]) == {1.5}
    assert table["hash"] == sorted(table["hash"])


def test_runs_added_later_are_packed_with_the_others(store: RunStore) -> None:
    first = compact(store).segments
    store.write(run(trial(seed=100)))
    assert len(store.hashes()) == COUNT + 1
    done = compact(store)
    assert (done.moved, done.packed) == (1, COUNT + 1)
    assert len(done.segments) == 1
    assert done.segments != first
    assert len(list(store.packed.folder.iterdir())) == 2


def test_equal_records_make_equal_files(store: RunStore, tmp_path: Path) -> None:
    shutil.copytree(store.root, tmp_path / "copy")
    one, other = compact(store), compact(RunStore(tmp_path / "copy"))
    assert [p.name for p in one.segments] == [p.name for p in other.segments]


def test_a_packed_record_is_not_written_again(store: RunStore) -> None:
    compact(store)
    store.write(run(trial(seed=1), steps=99))
    assert names(store) == ["segments"]
    assert store.read(trial(seed=1).hash).steps == 12


def test_damaged_and_interrupted_records_stay_in_their_folders(store: RunStore) -> None:
    store.write(run(trial(seed=50), status=Status.INTERRUPTED))
    broken = store.path(trial(seed=2).hash) / "metrics.parquet"
    broken.write_bytes(broken.read_bytes()[:-1])
    done = compact(store)
    assert (done.packed, done.loose) == (COUNT - 1, 2)
    assert isinstance(store.read(trial(seed=2).hash), DamagedRecord)
    store.write(run(trial(seed=50), status=Status.FINISHED))
    assert store.read(trial(seed=50).hash).status is Status.FINISHED


def test_a_damaged_folder_does_not_hide_a_packed_record(store: RunStore, tmp_path: Path) -> None:
    shutil.copytree(store.path(trial(seed=2).hash), tmp_path / "kept")
    compact(store)
    shutil.copytree(tmp_path / "kept", store.path(trial(seed=2).hash))
    (store.path(trial(seed=2).hash) / "run.json").write_text("{")
    assert isinstance(store.read(trial(seed=2).hash), Run)
    unpack(store)
    assert isinstance(store.loose(trial(seed=2).hash), Run)


def test_a_packed_record_can_be_set_aside(store: RunStore) -> None:
    before = content(store)
    compact(store)
    aside = store.set_aside(trial(seed=4).hash, even_good=True)
    assert aside is not None
    assert (aside / "run.json").read_bytes() == before.pop(trial(seed=4).hash)[0]
    assert store.read(trial(seed=4).hash) is None
    assert content(store) == before


def _flip(path: Path) -> None:
    array = bytearray(path.read_bytes())
    array[len(array) // 2] ^= 1
    path.write_bytes(array)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": _flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_segment_is_told_and_set_aside(
    store: RunStore, damage: Callable[[Path], None]
) -> None:
    path = compact(store).segments[0]
    damage(path)
    store = RunStore(store.root)
    found = store.read(trial(seed=1).hash)
    assert isinstance(found, DamagedRecord)
    assert "was changed after it was written" in str(found)
    assert [str(r.path) for r in store.scan()] == [str(path)]
    with pytest.raises(StoreError, match="is damaged"):
        compact(store)
    said: list[str] = []
    assert store.outcome(trial(seed=1).hash, said.append) is None
    assert not path.exists()
    assert (store.root / ".damaged" / path.name).exists()
    store.write(run(trial(seed=1)))
    assert isinstance(store.read(trial(seed=1).hash), Run)


def test_summaries_need_no_file_of_metrics(store: RunStore) -> None:
    compact(store)
    metrics = next(store.packed.folder.glob("*.metrics.parquet"))
    _flip(metrics)
    store = RunStore(store.root)
    assert isinstance(store.read(trial(seed=1).hash, metrics=False), Run)
    assert "was changed" in str(store.read(trial(seed=1).hash))
    metrics.unlink()
    assert "is missing" in str(RunStore(store.root).read(trial(seed=1).hash))


def test_a_segment_cannot_name_files_elsewhere(store: RunStore, tmp_path: Path) -> None:
    path = compact(store).segments[0]
    table = pq.read_table(path).replace_schema_metadata({"metrics": "../../x.metrics.parquet"})
    pq.write_table(table, tmp_path / "a")
    digest = hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    path.unlink()
    (tmp_path / "a").rename(path.with_name(f"{digest[:32]}.runs.parquet"))
    assert "names no file of metrics" in str(RunStore(store.root).read(trial(seed=1).hash))


def test_another_process_may_pack_meanwhile(store: RunStore) -> None:
    other = RunStore(store.root)
    assert isinstance(other.read(trial(seed=1).hash), Run)
    compact(store)
    assert isinstance(other.read(trial(seed=1).hash), Run)
    store.write(run(trial(seed=100)))
    compact(store)
    assert isinstance(other.read(trial(seed=2).hash), Run)
    unpack(store)
    assert isinstance(other.read(trial(seed=3).hash), Run)
    assert other.hashes() == store.hashes()


def test_a_full_disk_loses_nothing(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(store)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for place in (
        "records.packed_store.pq.write_table",
        "atomic_file.sync",
        "atomic_file.os.replace",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"optiscope.{place}", full)
            with pytest.raises(StoreError, match="disk is full"):
                compact(store)
        assert content(store) == before
    compact(store)
    with monkeypatch.context() as patch:
        patch.setattr("optiscope.atomic_file.sync", full)
        with pytest.raises(StoreError, match="disk is full"):
            unpack(store)
    assert content(store) == before


def test_what_was_not_written_well_removes_nothing(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(store)
    cell = packed_module._Segment.cell
    monkeypatch.setattr(packed_module._Segment, "cell", lambda *a: cell(*a) + b"x")
    with pytest.raises(StoreError, match="is not what was written"):
        compact(store)
    assert len(store.loose_hashes()) == COUNT
    monkeypatch.undo()
    assert content(store) == before


BACK_AND_FORTH = """
import sys
from optiscope.records import RunStore, compact, unpack
store = RunStore(sys.argv[1])
print("begin", flush=True)
while True:
    compact(store)
    unpack(store)
"""


def _kills(store: RunStore, times: int, seed: int) -> None:
    before, draws = content(store), random.Random(seed)
    for _ in range(times):
        process = subprocess.Popen(
            [sys.executable, "-c", BACK_AND_FORTH, str(store.root)],
            env={**os.environ, "PYTHONPATH": str(Path(packed_module.__file__).parents[2])},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(draws.random() * 0.25)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert content(store) == before


def test_killed_at_any_moment_no_record_is_in_neither_place(store: RunStore) -> None:
    _kills(store, 4, seed=1)
    compact(store)
    assert len(store.packed.hashes()) == COUNT


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_two_hundred_kills_while_packing_lose_nothing(store: RunStore, part: int) -> None:
    _kills(store, 20, seed=100 + part)


def test_what_has_weights_or_findings_stays_and_is_counted(store: RunStore) -> None:
    first, second, *_ = store.hashes()
    (store.path(first) / "weights").mkdir()
    (store.path(second) / "findings.json").write_text("[]")
    done = compact(store)
    assert (done.moved, done.loose, done.beside) == (COUNT - 2, 2, 2)
    assert store.findings(second) == []
