"""Records are written whole or not at all, and what cannot be trusted is named."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from record_examples import METRICS, run, trial

from optiscope.records import DamagedRecord, Run, RunStore, Status, StoreError, compact
from optiscope.records import store as store_module


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def same(found: object, expected: Run) -> bool:
    """Equality of runs that takes NaN for equal to itself."""
    return (
        isinstance(found, Run)
        and found.to_dict() == expected.to_dict()
        and repr(list(found.metrics)) == repr(list(expected.metrics))
    )


def test_what_was_written_is_read(store: RunStore) -> None:
    folder = store.write(run())
    assert folder == store.path(trial().hash)
    assert sorted(p.name for p in folder.iterdir()) == ["metrics.parquet", "run.json"]
    assert same(store.read(trial().hash), run())
    assert store.hashes() == [trial().hash]
    assert [same(found, dataclasses.replace(run(), metrics=())) for found in store.scan()] == [True]


def test_nothing_is_read_where_nothing_was_written(store: RunStore) -> None:
    assert store.read(trial().hash) is None
    assert store.hashes() == []
    assert list(store.scan()) == []


def test_a_run_without_metrics_is_kept(store: RunStore) -> None:
    bare = dataclasses.replace(run(), metrics=(), final={}, best={})
    store.write(bare)
    assert same(store.read(trial().hash), bare)


def test_metrics_are_a_parquet_table_in_long_form(store: RunStore) -> None:
    table = pq.read_table(store.write(run()) / "metrics.parquet")
    assert table.column_names == ["step", "epoch", "split", "name", "value"]
    assert table.column("step").to_pylist() == [m.step for m in METRICS]


# Every way in which a record may be damaged: what is done to it, and what the report says.
def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _better_loss(path: Path) -> None:
    _edit_json(path, final={"valid_loss": 0.001})


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: list[tuple[str, str, Callable[[Path], None], str]] = [
    ("truncated json", "run.json", _truncate, "not a run record"),
    ("empty json", "run.json", _empty, "not a run record"),
    ("binary json", "run.json", lambda p: p.write_bytes(b"\xff\xfe\x00"), "not a run record"),
    ("json of another kind", "run.json", lambda p: p.write_text("[1, 2]"), "not a run record"),
    ("json null", "run.json", lambda p: p.write_text("null"), "not a run record"),
    ("json without digest", "run.json", lambda p: p.write_text("{}"), "not a run record"),
    ("json with nan", "run.json", lambda p: _edit_json(p, steps=float("nan")), "not a run record"),
    ("edited json", "run.json", _better_loss, "run.json was changed"),
    ("missing json", "run.json", Path.unlink, "run.json is missing"),
    ("directory for json", "run.json", _directory_instead, "not a run record"),
    ("truncated metrics", "metrics.parquet", _truncate, "metrics.parquet was changed"),
    ("empty metrics", "metrics.parquet", _empty, "metrics.parquet was changed"),
    ("edited metrics", "metrics.parquet", _flip_a_byte, "metrics.parquet was changed"),
    ("missing metrics", "metrics.parquet", Path.unlink, "metrics.parquet is missing"),
]


@pytest.mark.parametrize(
    ("name", "damage", "reason"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES]
)
@pytest.mark.parametrize("metrics", [True, False], ids=["whole", "summary"])
def test_a_damaged_record_is_named(
    store: RunStore, name: str, damage: Callable[[Path], None], reason: str, metrics: bool
) -> None:
    folder = store.write(run())
    damage(folder / name)
    found = store.read(trial().hash, metrics=metrics)
    if damage is _flip_a_byte and not metrics:  # what is not read is not hashed
        assert isinstance(found, Run)
        return
    assert isinstance(found, DamagedRecord)
    assert reason in found.reason
    assert str(folder) in str(found)
    assert "\n" not in str(found)
    scanned = store.scan(metrics=metrics)
    assert [found] == [r for r in scanned if isinstance(r, DamagedRecord)]


def test_a_record_in_the_folder_of_another_trial_is_damaged(store: RunStore) -> None:
    folder = store.write(run())
    other = trial(seed=4).hash
    shutil.copytree(folder, store.path(other))
    found = store.read(other)
    assert isinstance(found, DamagedRecord)
    assert trial().hash in found.reason
    assert same(store.read(trial().hash), run())


def test_an_empty_folder_and_a_file_in_its_place_are_damaged(store: RunStore) -> None:
    store.path("a" * 20).mkdir(parents=True)
    store.path("b" * 20).write_text("")
    for trial_hash in ("a" * 20, "b" * 20):
        assert isinstance(store.read(trial_hash), DamagedRecord)


def test_a_record_that_was_edited_with_its_digest_still_names_its_trial(store: RunStore) -> None:
    folder = store.write(run())
    content = json.loads((folder / "run.json").read_text())
    content["trial"]["seed"] = 4
    del content["digest"]
    content["digest"] = store_module._digest(content)
    (folder / "run.json").write_text(json.dumps(content))
    found = store.read(trial().hash)
    assert isinstance(found, DamagedRecord)
    assert "another trial" in found.reason


def test_a_record_set_aside_is_kept_and_its_trial_is_free(store: RunStore) -> None:
    for _ in range(3):
        _truncate(store.write(run()) / "run.json")
        aside = store.set_aside(trial().hash)
        assert (aside / "metrics.parquet").is_file()
        assert store.read(trial().hash) is None
    assert len(list((store.root / ".damaged").iterdir())) == 3
    assert store.hashes() == []


def test_a_second_record_of_a_trial_is_dropped(store: RunStore) -> None:
    store.write(run(steps=12))
    store.write(run(steps=13))
    assert same(store.read(trial().hash), run(steps=12))
    assert [p.name for p in store.root.iterdir()] == [trial().hash]


def test_a_damaged_record_makes_room_for_a_new_one(store: RunStore) -> None:
    _truncate(store.write(run()) / "run.json")
    store.write(run())
    assert same(store.read(trial().hash), run())
    assert len(list((store.root / ".damaged").iterdir())) == 1


def test_a_good_record_written_since_the_look_is_not_moved_away(store: RunStore) -> None:
    """Two processes see one damaged record; the first has replaced it when the second moves it."""
    store.write(run())
    store.set_aside(trial().hash)
    assert same(store.read(trial().hash), run())
    assert not any((store.root / ".damaged").iterdir())
    shutil.rmtree(store.path(trial().hash))
    store.set_aside(trial().hash)  # somebody else moved it


def test_fields_of_a_newer_version_that_a_trial_does_not_use_are_no_damage(store: RunStore) -> None:
    for value, damaged in ((None, False), (3, True)):
        folder = store.write(run())
        content = json.loads((folder / "run.json").read_text())
        content["trial"]["new_field"] = value
        del content["imported"], content["digest"]
        content["digest"] = store_module._digest(content)
        (folder / "run.json").write_text(json.dumps(content))
        found = store.read(trial().hash)
        assert isinstance(found, DamagedRecord) is damaged
        if damaged:
            assert "written by another version of optiscope" in str(found)
        shutil.rmtree(folder)


def test_folders_that_cannot_be_synced_are_written(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    store.write(run())
    assert same(store.read(trial().hash), run())


def test_the_record_of_an_interrupted_run_makes_room(store: RunStore) -> None:
    store.write(run(status=Status.INTERRUPTED))
    store.write(run(status=Status.FINISHED))
    found = store.read(trial().hash)
    assert isinstance(found, Run)
    assert found.status is Status.FINISHED
    assert [p.name for p in store.root.iterdir()] == [trial().hash]


def test_only_abandoned_partial_records_are_swept(store: RunStore) -> None:
    store.write(run())
    abandoned, fresh = (store.root / f".partial-{name}" for name in ("old", "new"))
    for partial in (abandoned, fresh):
        partial.mkdir()
        (partial / "run.json").write_text("{")
    long_ago = time.time() - 2 * store_module.ABANDONED_SECONDS
    os.utime(abandoned, (long_ago, long_ago))
    store.sweep()
    assert not abandoned.exists()
    assert fresh.exists()
    assert store.hashes() == [trial().hash]


# Faults while writing: the old content stays, the error is one line, nothing partial is left.
FAULTS = [
    (errno.ENOSPC, "the disk is full"),
    (errno.EDQUOT, "quota"),
    (errno.EROFS, "read-only"),
    (errno.EACCES, "no permission"),
    (errno.EIO, "Input/output error"),
]
PLACES = [
    "optiscope.records.store.pq.write_table",
    "optiscope.atomic_file.sync",
    "optiscope.records.store.write_json_atomically",
    "optiscope.records.store.os.rename",
    "optiscope.atomic_file.os.replace",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("number", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_a_fault_while_writing_is_one_line_and_loses_nothing(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, place: str, number: int, words: str
) -> None:
    earlier = run(trial(seed=1))
    store.write(earlier)

    def fail(*args: object, **settings: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        with pytest.raises(StoreError) as caught:
            store.write(run())
    message = str(caught.value)
    assert words in message
    assert str(store.root) in message
    assert "\n" not in message
    assert [p.name for p in store.root.iterdir()] == [earlier.trial.hash]
    assert same(store.read(earlier.trial.hash), earlier)
    store.write(run())
    assert same(store.read(trial().hash), run())


WRITE_MANY = """
import sys
from optiscope.records import RunStore, StoreError
from record_examples import run, trial
store = RunStore(sys.argv[1])
try:
    for seed in range(10**6):
        store.write(run(trial(seed=seed)))
        print(seed, flush=True)
except StoreError as error:
    print(error, file=sys.stderr)
    sys.exit(4)
"""


def _writer(root: Path, code: str = WRITE_MANY) -> subprocess.Popen[str]:
    """A process that writes records of seeds 0, 1, 2, ... and prints each seed after its write."""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _check_all_written(store: RunStore, printed: str) -> int:
    """All records that were announced are whole; at most one more is there."""
    seeds = [int(line) for line in printed.split()]
    for seed in seeds:
        assert same(store.read(trial(seed=seed).hash), run(trial(seed=seed)))
    assert not [r for r in store.scan() if isinstance(r, DamagedRecord)]
    assert len(store.hashes()) - len(seeds) in (0, 1)
    return len(seeds)


def test_a_file_size_limit_is_one_line_and_loses_nothing(store: RunStore) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))\n"
    writer = _writer(store.root, limit + WRITE_MANY)
    errors = writer.communicate()[1]
    assert writer.returncode == 4
    assert len(errors.splitlines()) == 1
    assert f"cannot use {store.root}: " in errors
    assert list(store.root.iterdir()) == []


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs rights that this user does not have")
    try:
        store = RunStore(mount / "runs")
        writer = _writer(store.root)
        announced, errors = writer.communicate()
        assert writer.returncode == 4
        assert errors.splitlines() == [
            f"cannot use {store.root}: the disk is full: free some space and start again, "
            "nothing recorded is lost"
        ]
        assert _check_all_written(store, announced) > 3
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def _as_nobody(act: Callable[[], None]) -> None:
    """Run ``act`` as a user whom permissions hold back; fail where it fails."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            act()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_read_only_folder_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    store.write(run(trial(seed=1)))
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    store.root.chmod(0o555)

    def write() -> None:
        with pytest.raises(StoreError, match=f"^cannot use {store.root}: no permission[^\n]*$"):
            store.write(run())

    try:
        _as_nobody(write)
    finally:
        store.root.chmod(0o755)
    assert store.hashes() == [trial(seed=1).hash]
    assert same(store.read(trial(seed=1).hash), run(trial(seed=1)))


def test_a_file_where_the_folder_should_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    store = RunStore(tmp_path / "runs")
    with pytest.raises(StoreError, match="cannot use"):
        store.write(run())
    with pytest.raises(StoreError, match="cannot use"):
        store.check_writable()


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "new" / "runs")
    store.check_writable()
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize(
    "delays",
    [
        (0.0, 0.013, 0.031),
        pytest.param([0.0007 * n for n in range(200)], marks=pytest.mark.slow),
    ],
    ids=["three", "two hundred"],
)
def test_a_writer_killed_at_any_moment_leaves_whole_records_only(
    store: RunStore, delays: Sequence[float]
) -> None:
    for delay in delays:
        writer = _writer(store.root)
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.communicate()[0]
        announced = [line for line in (first + rest).splitlines(keepends=True) if line[-1] == "\n"]
        assert _check_all_written(store, "".join(announced)) >= 1
        shutil.rmtree(store.root)


def _write_often(root: Path, barrier: object, steps: int) -> None:
    store = RunStore(root)
    for seed in range(20):
        barrier.wait()  # type: ignore[attr-defined]
        store.write(run(trial(seed=seed), steps=steps))


def test_concurrent_writers_of_one_trial_leave_one_whole_record(store: RunStore) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    writers = [
        context.Process(target=_write_often, args=(store.root, barrier, steps))
        for steps in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    found = list(store.scan(metrics=True))
    assert len(found) == 20
    assert all(isinstance(f, Run) and f.steps in range(3) for f in found)
    assert not list(store.root.glob(".*"))


def test_folders_that_cannot_be_opened_are_no_fault(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a folder cannot be opened, so cannot be synced."""
    opened = os.open

    def files_only(path: Path | str, *arguments: int) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", files_only)
    store.write(run())
    compact(store)
    assert same(store.read(trial().hash), run())
