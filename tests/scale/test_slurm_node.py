"""A study on a real Slurm of one node: submitted, killed, requeued, and equal to one at home."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from one_node_slurm import OneNodeSlurm, missing

from optiscope.records import Run, RunStore

why_not = missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not is not None, reason=str(why_not)),
]

STUDY = """\
name = "onslurm"
question = "Which?"
problems = ["digits_mlp"]
epochs = {epochs}
seeds = [11, 12]

[[algorithms]]
label = "SGD"
optimizer = "sgd"
fixed = {{ lr = 0.05 }}

[[algorithms]]
label = "Adam"
optimizer = "adam"
fixed = {{ lr = 0.01 }}
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNodeSlurm]:
    one = OneNodeSlurm(Path(tmp_path_factory.mktemp("slurm")))
    try:
        one.up()
        yield one
    finally:
        one.down()


def optiscope(slurm: OneNodeSlurm, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from optiscope.cli import main; main()", *words],
        env={**slurm.environment, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def curves(folder: Path) -> dict[str, Any]:
    runs = [run for run in RunStore(folder / "runs").scan(metrics=True) if isinstance(run, Run)]
    return {run.trial.hash: (run.status, run.reason, run.metrics, run.counts) for run in runs}


def wait(slurm: OneNodeSlurm, done: Any, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"{slurm.jobs()} {_logs(slurm)}"
        for line in slurm.jobs():  # a job that was requeued is held for two minutes
            number, state = line.split()
            if state == "PENDING":
                slurm.call("scontrol", "update", f"jobid={number}", "starttime=now")
        time.sleep(0.5)


def _logs(slurm: OneNodeSlurm) -> str:
    return "\n".join(p.read_text()[-2000:] for p in slurm.folder.parent.rglob("logs/*.out"))


def test_a_study_is_submitted_and_equals_one_at_home(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.format(epochs=2))
    words = ["bench", str(tmp_path / "study.toml"), "--out", str(tmp_path / "there")]
    said = optiscope(slurm, *words, "--on", "slurm", "--partition", "day", "--array", "2")
    assert "Submitted batch job" in said
    assert "4 trials, 2 workers" in said
    wait(slurm, lambda: not slurm.jobs())
    optiscope(slurm, *words[:3], str(tmp_path / "here"))
    assert curves(tmp_path / "there") == curves(tmp_path / "here")
    assert len(curves(tmp_path / "there")) == 4
    assert not list((tmp_path / "there" / "claims").glob("[!.]*"))


def test_a_requeued_job_goes_on_where_it_was(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    """USR1, as before a time limit: the worker saves, asks to be started again, and goes on."""
    (tmp_path / "study.toml").write_text(STUDY.format(epochs=300).replace("[11, 12]", "[11]"))
    words = ["bench", str(tmp_path / "study.toml"), "--out", str(tmp_path / "there")]
    optiscope(slurm, *words, "--on", "slurm", "--array", "1")
    saved = tmp_path / "there" / "runs" / ".checkpoints"
    wait(slurm, lambda: list(saved.glob("[!.]*.pt")))
    job = slurm.jobs()[0].split()[0]
    slurm.call("scancel", "--batch", "--signal=USR1", job)
    wait(slurm, lambda: not slurm.jobs())
    runs = [r for r in RunStore(tmp_path / "there" / "runs").scan() if isinstance(r, Run)]
    assert len(runs) == 2, _logs(slurm)
    assert max(len(run.environment["sessions"]) for run in runs) == 2, _logs(slurm)
    optiscope(slurm, *words[:3], str(tmp_path / "here"))
    assert curves(tmp_path / "there") == curves(tmp_path / "here")
