"""A study on a real Slurm of one node: submitted, signaled, requeued, and equal to one at home.

Needs root and the packages slurm-wlm and munge; elsewhere it skips and says so. Nothing waits
without a limit, and no daemon outlives the tests.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from one_node_slurm import OneNodeSlurm, missing

from optiscope.cli.root import root
from optiscope.executors.slurm import ended_as
from optiscope.records import Run, RunStore, StudyFolder
from optiscope.study import load_study
from optiscope.study.worker import study_in, work

why_not = missing()
pytestmark = pytest.mark.skipif(why_not is not None, reason=str(why_not))

HELD_OPTIMIZER = """
import os, signal, time, torch
from pathlib import Path


class Held(torch.optim.SGD):
    \"\"\"Waits in its fifth step until it is told to leave, or the file "go" is there.\"\"\"

    def step(self, closure=None):
        self.taken = getattr(self, "taken", 0) + 1
        if "HELD" in os.environ and self.taken == 5:
            self.hold(Path(os.environ["HELD"]))
        return super().step(closure)

    def hold(self, place):
        def told(number, frame):
            (place / "go").touch()
            former(number, frame)

        former = signal.signal(signal.SIGTERM, told)
        (place / f"{os.getpid()}.holds").touch()
        end = time.monotonic() + 500.0
        while not (place / "go").exists() and time.monotonic() < end:
            time.sleep(0.02)
        signal.signal(signal.SIGTERM, former)
"""

STUDY = """\
name = "onslurm"
question = "Which?"
problems = ["digits_mlp"]
epochs = 2
seeds = [{seeds}]

[[algorithms]]
label = "Held"
optimizer = "held_optimizer:Held"
fixed = {{ lr = 0.05, momentum = 0.9 }}
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNodeSlurm]:
    one = OneNodeSlurm(tmp_path_factory.mktemp("slurm"))
    try:
        try:
            one.up()
        except TimeoutError as error:
            pytest.skip(f"its daemons are here and do not start: {error}")
        yield one
    finally:
        one.down()


@pytest.fixture
def submit(
    slurm: OneNodeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Submits a study of an optimizer that waits, and says that it does."""
    (tmp_path / "held_optimizer.py").write_text(HELD_OPTIMIZER)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))

    def submitted(array: int, *, seeds: str) -> str:
        (tmp_path / "study.toml").write_text(STUDY.format(seeds=seeds))
        with pytest.MonkeyPatch.context() as there:
            there.setenv("HELD", str(tmp_path))
            result = CliRunner().invoke(
                root,
                ["bench", str(tmp_path / "study.toml"), "--out", str(tmp_path / "there"),
                 "--on", "slurm", "--partition", "day", "--array", str(array)],
            )  # fmt: skip
        assert result.exit_code == 0, result.output
        return result.output

    return submitted


def at_home(folder: Path) -> Path:
    """The same study, trained here."""
    kept = StudyFolder(folder / "here")
    kept.write_declaration(load_study(folder / "study.toml").to_dict())
    assert work(study_in(kept), kept).finished
    return kept.path


def curves(folder: Path) -> dict[str, Any]:
    runs = [run for run in RunStore(folder / "runs").scan(metrics=True) if isinstance(run, Run)]
    return {run.trial.hash: (run.status, run.reason, run.metrics, run.counts) for run in runs}


class Patience:
    """Waits, for all of a test together as long as it may take, and says what it saw."""

    def __init__(self, slurm: OneNodeSlurm, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        self.end = time.monotonic() + 480.0

    def until(self, done: Callable[[], bool], meanwhile: Callable[[], object]) -> None:
        """``done``; and do something every ten seconds meanwhile, at first after ten.

        A node refuses a job that starts in the second in which its former start was ended: to
        Slurm the two are the same job. So nothing is hastened before.
        """
        following = time.monotonic() + 10.0
        while not done():
            now = time.monotonic()
            seen = f"{self.slurm.jobs()}\n{logs(self.folder)}\n{self.slurm.said()}"
            assert now < self.end, seen
            if now > following:
                meanwhile()
                following = time.monotonic() + 10.0
            time.sleep(0.2)


def logs(folder: Path) -> str:
    return "\n".join(p.read_text()[-2000:] for p in folder.rglob("logs/*.out"))


def test_a_requeued_job_goes_on_where_it_was(
    slurm: OneNodeSlurm, submit: Callable[..., str], tmp_path: Path
) -> None:
    """USR1, as before a time limit: the worker saves, asks to be started again, and goes on."""
    said, patience = submit(1, seeds="11"), Patience(slurm, tmp_path)
    assert "Submitted batch job" in said
    assert "1 of 1 trials left, 1 workers" in said
    patience.until(lambda: bool(list(tmp_path.glob("*.holds"))), slurm.hasten)

    def tell() -> None:
        if not (tmp_path / "go").exists():  # it was not heard
            for number in slurm.jobs():
                slurm.call("scancel", "--batch", "--signal=USR1", number)

    tell()
    patience.until((tmp_path / "go").exists, tell)
    store = RunStore(tmp_path / "there" / "runs")
    patience.until(lambda: bool(list(store.scan())) and not slurm.jobs(), slurm.hasten)
    (run,) = (r for r in store.scan() if isinstance(r, Run))
    sessions = run.environment["sessions"]
    assert [session["from_step"] for session in sessions] == [0, 5], logs(tmp_path)
    assert sessions[0]["job"] == sessions[1]["job"]
    assert curves(tmp_path / "there") == curves(at_home(tmp_path))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_by_another(
    slurm: OneNodeSlurm, submit: Callable[..., str], tmp_path: Path
) -> None:
    """kill -9 of one of two workers: the other takes its trial over, and no claim is left."""
    submit(2, seeds="11, 12, 13, 14")
    patience = Patience(slurm, tmp_path)
    patience.until(lambda: len(list(tmp_path.glob("*.holds"))) == 2, slurm.hasten)
    claims = tmp_path / "there" / "claims"
    both = [json.loads(path.read_text()) for path in sorted(claims.glob("[!.]*.json"))]
    os.kill(both[0]["process"], signal.SIGKILL)
    patience.until(lambda: len(slurm.jobs()) == 1, lambda: None)
    assert [ended_as(one["job"]) for one in both] == ["FAILED", None]
    (tmp_path / "go").touch()
    patience.until(lambda: not slurm.jobs(), slurm.hasten)
    assert curves(tmp_path / "there") == curves(at_home(tmp_path))
    assert not list(claims.glob("[!.]*.json"))
    said = " ".join(logs(tmp_path).split())
    assert "the job that had it ended as FAILED; going on from there" in said
