"""Workers without a head: together they record what one process would, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_studies import SMALL, TRIALS, declared, essence

from optiscope.executors.apart import children_allowed
from optiscope.records import Run, RunStore, Status, StoreError, StudyFolder
from optiscope.study.claims import Claims
from optiscope.study.plan import Plan
from optiscope.study.worker import study_in, work

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers fork")


def prepared(folder: Path, text: str = SMALL) -> StudyFolder:
    study = declared(folder, text)
    kept = StudyFolder(folder / "out")
    kept.write_declaration(study.to_dict())
    return kept


def start(folder: StudyFolder, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from optiscope.cli import main; main()", "work", str(folder.path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_study_in_a_folder_is_the_one_declared(tmp_path: Path) -> None:
    kept = prepared(tmp_path)
    assert study_in(kept).to_dict() == declared(tmp_path).to_dict()


def test_one_worker_records_what_bench_does(undisturbed: Path, tmp_path: Path) -> None:
    kept = prepared(tmp_path)
    said: list[str] = []
    did = work(study_in(kept), kept, say=said.append)
    assert (did.trained, did.finished, did.left) == (TRIALS, True, False)
    assert len(said) == TRIALS
    assert essence(kept.path) == essence(undisturbed)
    assert not Claims(kept.path).all()
    assert not list((kept.store.root / ".checkpoints").glob("*.pt"))
    claims = Claims(kept.path)
    name = kept.store.hashes()[0]
    assert claims.take(name) is not None  # and killed once it had recorded
    left = [kept.store.root / ".checkpoints" / f"{name}.pt", claims.folder / ".clock-here-1"]
    left += [kept.store.root / ".checkpoints" / f".{name}.pt-0a", claims.folder / ".stale-0a"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    again = work(study_in(kept), kept)
    assert (again.trained, again.finished) == (0, True)
    assert not claims.all()
    assert not [path for path in left if path.exists()]


def test_a_worker_leaves_after_so_many_trials(tmp_path: Path) -> None:
    kept = prepared(tmp_path)
    did = work(study_in(kept), kept, max_trials=2)
    assert not children_allowed()  # what comes next in this process may use threads
    assert (did.trained, did.finished) == (2, False)
    assert len(kept.store.hashes()) == 2


def test_a_claim_is_ones_own_until_it_is_stale(tmp_path: Path) -> None:
    claims, path = Claims(tmp_path, beat=100.0), tmp_path / "claims" / "a.json"
    claim = claims.take("a")
    assert claim is not None
    assert claims.take("a") is None
    os.utime(path, (1e9, 1e9))
    with Claims(tmp_path, beat=0.01).beating(claim):
        end = time.monotonic() + 60.0
        while path.stat().st_mtime == 1e9 and time.monotonic() < end:
            time.sleep(0.01)
    assert claims.take("a") is None  # it has beaten
    claims.release(claim)
    assert claims.read("a") is None
    lost = claims.take("a")
    assert lost is not None
    path.write_text(path.read_text().replace(f'"process": {os.getpid()}', '"process": 4194303'))
    taken = claims.take("a")  # its process is gone
    assert taken is not None
    assert taken.lost == 1


def test_a_claim_from_elsewhere_is_judged_by_the_servers_clock(tmp_path: Path) -> None:
    claims = Claims(tmp_path, beat=100.0)
    assert claims.take("a") is not None
    path = tmp_path / "claims" / "a.json"
    text = path.read_text()
    path.write_text(text.replace('"host": "', '"host": "other-'))
    assert claims.take("a") is None
    old = time.time() - 3600
    os.utime(path, (old, old))
    assert claims.take("a") is not None


def gone(claims: Claims, host: str = "other") -> None:
    """Make the claim on trial ``a`` that of a worker that vanished."""
    path = claims.folder / "a.json"
    values = json.loads(path.read_text()) | {"host": host, "job": "7"}
    path.write_text(json.dumps(values))
    os.utime(path, (1e9, 1e9))


def test_a_claim_remembers_how_the_jobs_ended_that_had_it(tmp_path: Path) -> None:
    ends = iter(["PREEMPTED", "OUT_OF_MEMORY", None, "NODE_FAIL"])
    claims = Claims(tmp_path, ended_as=lambda job: next(ends) if job == "7" else "odd")
    claim = claims.take("a")
    for blamed, remembered in ((0, 1), (1, 2), (2, 2), (2, 3)):
        gone(claims)
        claim = claims.take("a")
        assert claim is not None
        assert (claim.lost, len(claim.ends)) == (blamed, remembered)
    assert claim == claims.read("a")
    assert claim is not None
    assert claim.ends == ("PREEMPTED", "OUT_OF_MEMORY", "NODE_FAIL")


def test_a_claim_that_is_just_being_written_is_not_taken_over(tmp_path: Path) -> None:
    claims = Claims(tmp_path, beat=100.0)
    claims.folder.mkdir()
    path = claims.folder / "a.json"
    path.touch()
    assert claims.take("a") is None
    os.utime(path, (1e9, 1e9))  # its writer died
    assert claims.take("a") is not None


def test_a_worker_whose_clock_is_off_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as off:
        off.setattr(time, "time", lambda: 4e9)
        claim = Claims(tmp_path).take("a")
    assert claim is not None
    values = json.loads((tmp_path / "claims" / "a.json").read_text())
    (tmp_path / "claims" / "a.json").write_text(json.dumps(values | {"host": "other"}))
    assert Claims(tmp_path).take("a") is None
    assert [stale for _, stale in Claims(tmp_path).all()] == [False]


def test_a_full_disk_is_one_line_and_leaves_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(StoreError, match="the disk is full"):
        Claims(tmp_path).take("a")
    assert not list((tmp_path / "claims").glob("*"))


def test_jobs_that_ran_out_of_memory_are_a_crash_in_words(tmp_path: Path) -> None:
    kept = prepared(tmp_path)
    claims = Claims(kept.path, ended_as=lambda job: "OUT_OF_MEMORY")
    name = next(iter(Plan(study_in(kept)).ask())).hash
    for _ in range(5):
        claims.take(name)
        path = claims.folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "o", "job": "7"}))
        os.utime(path, (1e9, 1e9))
    work(study_in(kept), kept, claims=claims)
    run = kept.store.read(name)
    assert isinstance(run, Run)
    assert (run.status, run.reason) == (
        Status.CRASHED, "its job ended 5 times (OUT_OF_MEMORY)",
    )  # fmt: skip


def test_a_folder_that_lists_late_loses_nothing(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each listing shows what was there at the one before, as a network file system may."""
    kept = prepared(tmp_path)
    listed, before = RunStore.loose_hashes, list[list[str]]([[]])

    def late(store: RunStore) -> list[str]:
        before.append(listed(store))
        return before[-2]

    monkeypatch.setattr(RunStore, "loose_hashes", late)
    monkeypatch.setattr("optiscope.study.worker.LOOK_SECONDS", 0.01)
    did = work(study_in(kept), kept)
    monkeypatch.undo()
    assert (did.trained, did.finished) == (TRIALS, True)
    assert essence(kept.path) == essence(undisturbed)
    assert not Claims(kept.path).all()


def test_status_shows_who_trains_what(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from optiscope.cli.root import root

    kept = prepared(tmp_path)
    plan = Plan(study_in(kept))
    kept.write_ledger(plan.entries)
    claims = Claims(kept.path)
    assert claims.take(plan.entries[0].trial_hash) is not None
    (kept.path / "claims" / "odd.json").write_text('{"host": 1, "process": "x"}')
    text = CliRunner().invoke(root, ["status", str(kept.path)]).output
    assert "SGD on digits_logreg, seed 1: " in text
    found = json.loads(CliRunner().invoke(root, ["status", str(kept.path), "--json"]).output)
    assert [worker["stale"] for worker in found["workers"]] == [False]


@pytest.mark.slow
def test_two_workers_killed_at_random_lose_nothing(undisturbed: Path, tmp_path: Path) -> None:
    import random

    kept, chance = prepared(tmp_path), random.Random(0)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        workers = [start(kept), start(kept)]
        time.sleep(chance.uniform(6.0, 12.0))
        workers[0].send_signal(number)
        workers[0].wait(60)
        workers[1].send_signal(signal.SIGTERM)
        workers[1].wait(60)
    last = start(kept)
    assert last.wait(240) == 0, last.communicate()
    assert essence(kept.path) == essence(undisturbed)
    assert not Claims(kept.path).all()


DYING = """
import os, signal, torch


class Dies(torch.optim.SGD):
    def step(self, closure=None):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_trial_that_kills_its_process_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "dying_optimizer.py").write_text(DYING)
    kept = prepared(
        tmp_path,
        'name = "dies"\nquestion = "?"\nproblems = ["digits_logreg"]\nepochs = 1\nseeds = [5]\n'
        '[[algorithms]]\noptimizer = "dying_optimizer:Dies"\nfixed = { lr = 0.1 }\n',
    )
    did = work(study_in(kept), kept)
    assert did.finished
    (name,) = RunStore(kept.store.root).hashes()
    run = kept.store.read(name)
    assert isinstance(run, Run)
    assert run.status is Status.CRASHED
    assert run.reason.startswith("its process was killed 5 times (SIGKILL")
