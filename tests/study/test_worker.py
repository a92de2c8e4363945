"""Workers without a head: together they record what one process would, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_studies import SMALL, TRIALS, declared, essence

from optiscope.executors.apart import children_allowed
from optiscope.records import Run, RunStore, Status, StudyFolder
from optiscope.study.claims import Claims
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
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
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
    assert claims.take(kept.store.hashes()[0]) is not None  # and killed once it had recorded
    again = work(study_in(kept), kept)
    assert (again.trained, again.finished) == (0, True)
    assert not claims.all()


def test_a_worker_leaves_after_so_many_trials(tmp_path: Path) -> None:
    kept = prepared(tmp_path)
    did = work(study_in(kept), kept, max_trials=2)
    assert not children_allowed()  # what comes next in this process may use threads
    assert (did.trained, did.finished) == (2, False)
    assert len(kept.store.hashes()) == 2


def test_a_claim_is_ones_own_until_it_is_stale(tmp_path: Path) -> None:
    claims = Claims(tmp_path, beat=0.05)
    claim = claims.take("a")
    assert claim is not None
    assert claims.take("a") is None
    with claims.beating(claim):
        time.sleep(1.0)
        assert claims.take("a") is None
    claims.release(claim)
    assert claims.read("a") is None
    lost = claims.take("a")
    assert lost is not None
    path = tmp_path / "claims" / "a.json"
    path.write_text(path.read_text().replace(f'"process": {os.getpid()}', '"process": 4194303'))
    taken = claims.take("a")  # its process is gone
    assert taken is not None
    assert taken.lost == 1


def test_a_claim_from_elsewhere_is_judged_by_the_servers_clock(tmp_path: Path) -> None:
    claims = Claims(tmp_path, beat=1.0)
    assert claims.take("a") is not None
    path = tmp_path / "claims" / "a.json"
    text = path.read_text()
    path.write_text(text.replace('"host": "', '"host": "other-'))
    assert claims.take("a") is None
    old = time.time() - 60
    os.utime(path, (old, old))
    assert claims.take("a") is not None


def test_status_shows_who_trains_what(tmp_path: Path) -> None:
    import json

    from click.testing import CliRunner

    from optiscope.cli.root import root
    from optiscope.study.plan import Plan

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
