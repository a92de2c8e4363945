"""Killed at random moments and started again, a study ends with the records it would have had."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from killing import Forked, Started, kill_until_done
from small_studies import SMALL, Inline, essence

from optiscope.executors.process_pool import _start_worker
from optiscope.study import load_study, run_study

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="finds workers and orphans in /proc"
)

LONGER = """\
name = "longer"
question = "Which?"
problems = ["digits_logreg", "digits_mlp"]
epochs = 4
seeds = [11, 12, 13]
schedule = { name = "linear_decay" }

[tuning]
sampler = "qmc"
budget = 4
seeds = [1]

[[algorithms]]
label = "SGD"
optimizer = "sgd"

[[algorithms]]
label = "Adam"
optimizer = "adam"
sampler = "tpe"
"""


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """A process that is forked must not have used more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _start_forked_worker(parent: int) -> None:
    torch.set_num_threads(1)
    _start_worker(parent)


def forked_pool(workers: int) -> ProcessPoolExecutor:
    """The package's pool, but of copies, which need not import torch again."""
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_start_forked_worker,
        initargs=(os.getpid(),),
    )


@pytest.mark.usefixtures("_one_thread")
def test_a_study_survives_a_few_kills(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(SMALL)
    study = load_study(path)
    run_study(study, tmp_path / "undisturbed", executor=Inline)
    killed: Counter[str] = Counter()
    for attempt in range(20):
        out = tmp_path / f"out{attempt}"

        def start(out: Path = out) -> Started:
            return Forked(lambda: run_study(study, out, workers=2, executor=forked_pool))

        killed += kill_until_done(start, kills=3, longest=0.6, patience=240.0, seed=attempt)
        assert essence(out) == essence(tmp_path / "undisturbed")
        if killed.total() >= 3:
            return
    pytest.fail("the study always ended before it could be killed")


@pytest.mark.slow
def test_a_study_survives_many_kills(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(LONGER)

    def start_in(out: Path) -> Started:
        command = "from optiscope.cli import main; main()"
        arguments = ["bench", path, "--out", out, "--workers", "2"]
        return subprocess.Popen(
            [sys.executable, "-c", command, *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    undisturbed = tmp_path / "undisturbed"
    assert not kill_until_done(
        lambda: start_in(undisturbed), kills=0, longest=0.0, patience=600.0, seed=0
    )
    killed: Counter[str] = Counter()
    tries = 0
    while killed.total() < 24 or not {"parent", "worker", "all"} <= set(killed):
        tries += 1
        out = tmp_path / f"out{tries}"
        killed += kill_until_done(
            lambda out=out: start_in(out),  # type: ignore[misc]
            kills=12,
            longest=15.0,
            patience=600.0,
            seed=tries,
        )
        assert essence(out) == essence(undisturbed)
        assert (out / "report.html").is_file()
    print(f"killed: {dict(killed)} in {tries} studies")
