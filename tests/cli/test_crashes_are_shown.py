"""A crash is shown with its exception and line: in the terminal, in status and in JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from optiscope.records import Run, Status
from optiscope.report import summary_json
from stats.small_study import TWO, study

if TYPE_CHECKING:
    from conftest import Command

REASON = "at step 3: ValueError: no such thing (own.py:7)"
STUDY = """\
name = "breaks"
question = "?"
problems = ["digits_logreg"]
epochs = 1
seeds = [11]

[tuning]
sampler = "grid"
seeds = [1]

[[algorithms]]
label = "Breaks"
optimizer = "breaking_at:Breaks"
fixed = { lr = 0.1 }
space = { after = { choice = [2, 1000] } }
"""
BREAKS = """\
import torch


class Breaks(torch.optim.SGD):
    def __init__(self, params, lr: float, after: int):
        super().__init__(params, lr=lr)
        self.left = after

    def step(self, closure=None):
        self.left -= 1
        if self.left < 0:
            raise ValueError("no such thing")
        return super().step(closure)
"""


def test_status_and_json_tell_exception_and_line(tmp_path: Path, optiscope: Command) -> None:
    folder = study(tmp_path / "study", TWO)
    for name in list(folder.store.hashes()):
        run = folder.store.read(name)
        assert isinstance(run, Run)
        if run.trial.optimizer == "adam" and run.trial.seed in (100, 101):
            folder.store.set_aside(name, even_good=True)
            folder.store.write(replace(run, status=Status.CRASHED, reason=REASON))
    expected = [{"algorithm": "Adam", "problem": "fmnist_2c2d", "runs": 2, "reason": REASON}]
    assert json.loads(optiscope("status", folder.path, "--json").out)["crashed"] == expected
    assert summary_json(folder)["crashed"] == expected
    said = " ".join(optiscope("status", folder.path).out.split())
    assert f"Adam on fmnist_2c2d, 2 runs crashed {REASON}" in said


@pytest.mark.usefixtures("_own_code")
def test_bench_tells_it_and_fails(tmp_path: Path, optiscope: Command) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    outcome = optiscope("bench", tmp_path / "study.toml", "--out", tmp_path / "out")
    assert outcome.code == 1
    said = " ".join(outcome.err.split())
    where = "at step 2: ValueError: no such thing (breaking_at.py:12)"
    assert said.index(where) < said.rindex(where)  # at once, and at the end
    assert f"Breaks on digits_logreg, 1 run crashed {where}; once mended: --retry-crashed" in said
    again = optiscope("bench", tmp_path / "study.toml", "--out", tmp_path / "out", "--json")
    assert again.code == 1
    assert json.loads(again.out)["crashed"][0]["reason"] == where


@pytest.fixture
def _own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaking_at.py").write_text(BREAKS)
    monkeypatch.syspath_prepend(tmp_path)
