"""A study on a real Slurm of one node: submitted, signaled, requeued, and equal to one at home.

Needs root and the packages slurm-wlm and munge; elsewhere it skips and says so. Nothing waits
without a limit, and no daemon outlives the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from one_node_slurm import OneNodeSlurm, missing

from optiscope.cli.root import root
from optiscope.records import Run, RunStore, StudyFolder
from optiscope.study import load_study
from optiscope.study.worker import study_in, work

why_not = missing()
pytestmark = pytest.mark.skipif(why_not is not None, reason=str(why_not))

SLOW_OPTIMIZER = """
import os, time, torch
from pathlib import Path


class Slow(torch.optim.SGD):
    def step(self, closure=None):
        if "STEP_SECONDS" in os.environ:
            Path(os.environ["STEPPING"]).touch()
            time.sleep(float(os.environ["STEP_SECONDS"]))
        return super().step(closure)
"""

STUDY = """\
name = "onslurm"
question = "Which?"
problems = ["digits_mlp"]
epochs = {epochs}
seeds = [{seeds}]

[[algorithms]]
label = "Slow"
optimizer = "slow_optimizer:Slow"
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
    """Submits a study of an optimizer that takes its time, and says that it steps."""
    (tmp_path / "slow_optimizer.py").write_text(SLOW_OPTIMIZER)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    monkeypatch.setenv("STEPPING", str(tmp_path / "stepping"))

    def submitted(array: int, seconds: float, *, epochs: int, seeds: str) -> str:
        (tmp_path / "study.toml").write_text(STUDY.format(epochs=epochs, seeds=seeds))
        with pytest.MonkeyPatch.context() as there:
            there.setenv("STEP_SECONDS", str(seconds))
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


def wait(slurm: OneNodeSlurm, done: Callable[[], bool], folder: Path) -> None:
    """Until it is done; what was requeued starts after five seconds, not after two minutes.

    A node refuses a job that starts in the second in which its former start was ended: to Slurm
    the two are the same job.
    """
    end, pending = time.monotonic() + 240.0, dict[str, float]()
    while not done():
        now = time.monotonic()
        assert now < end, f"{slurm.jobs()}\n{logs(folder)}\n{slurm.said()}"
        waiting = [line.split()[0] for line in slurm.jobs() if line.endswith(" PENDING")]
        pending = {number: pending.get(number, now) for number in waiting}
        for number, since in pending.items():
            if now - since > 5.0:
                slurm.call("scontrol", "update", f"jobid={number}", "starttime=now")
        time.sleep(0.2)


def logs(folder: Path) -> str:
    return "\n".join(p.read_text()[-2000:] for p in folder.rglob("logs/*.out"))


def test_a_requeued_job_goes_on_where_it_was(
    slurm: OneNodeSlurm, submit: Callable[..., str], tmp_path: Path
) -> None:
    """USR1, as before a time limit: the worker saves, asks to be started again, and goes on."""
    said = submit(1, 0.05, epochs=3, seeds="11")
    assert "Submitted batch job" in said
    assert "1 trials, 1 workers" in said
    wait(slurm, lambda: (tmp_path / "stepping").exists(), tmp_path)
    time.sleep(0.5)  # some steps
    slurm.call("scancel", "--batch", "--signal=USR1", slurm.jobs()[0].split()[0])
    store = RunStore(tmp_path / "there" / "runs")
    wait(slurm, lambda: bool(list(store.scan())) and not slurm.jobs(), tmp_path)
    (run,) = (r for r in store.scan() if isinstance(r, Run))
    sessions = run.environment["sessions"]
    assert len(sessions) == 2, logs(tmp_path)
    assert sessions[1]["from_step"] > 0
    assert sessions[0]["job"] == sessions[1]["job"]
    assert curves(tmp_path / "there") == curves(at_home(tmp_path))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_by_another(
    slurm: OneNodeSlurm, submit: Callable[..., str], tmp_path: Path
) -> None:
    """kill -9 of one of two workers: the other takes its trial over, and no claim is left."""
    submit(2, 0.05, epochs=2, seeds="11, 12, 13, 14")
    claims = tmp_path / "there" / "claims"
    wait(slurm, lambda: len(list(claims.glob("[!.]*.json"))) == 2, tmp_path)
    slurm.call("scancel", "--full", "--signal=KILL", slurm.jobs()[0].split()[0])
    wait(slurm, lambda: not slurm.jobs(), tmp_path)
    if len(curves(tmp_path / "there")) < 4:  # where both were one job's: once more
        assert subprocess.run(
            [sys.executable, "-c", "from optiscope.cli import main; main()", "work",
             str(tmp_path / "there")],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=150,
        ).returncode == 0  # fmt: skip
    assert curves(tmp_path / "there") == curves(at_home(tmp_path))
    assert not list(claims.glob("[!.]*.json"))
