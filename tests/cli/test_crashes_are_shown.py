"""A crash is shown with its exception and line: in the terminal, in status and in JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
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
ONE = """
[[algorithms]]
label = "A"
optimizer = "sgd"
fixed = { lr = 0.1 }
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


@pytest.mark.usefixtures("_own_code", "_inline")
def test_bench_tells_it_and_fails(tmp_path: Path, optiscope: Command) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    outcome = optiscope("bench", tmp_path / "study.toml", "--out", tmp_path / "out")
    assert outcome.code == 1
    said = " ".join(outcome.err.split())
    where = "at step 2: ValueError: no such thing (breaking_at.py:12)"
    assert said.index(where) < said.rindex(where)  # at once, and at the end
    assert f"Breaks on digits_logreg, 1 run crashed {where}; once fixed: --retry-crashed" in said
    again = optiscope("bench", tmp_path / "study.toml", "--out", tmp_path / "out", "--json")
    assert again.code == 1
    assert json.loads(again.out)["crashed"][0]["reason"] == where


@pytest.fixture
def _own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaking_at.py").write_text(BREAKS)
    monkeypatch.syspath_prepend(tmp_path)


def test_work_and_reproduce_do_not_end_well_where_runs_crashed(
    tmp_path: Path, optiscope: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optiscope.reproduction.sections import Section
    from optiscope.study import worker

    reproduce = import_module("optiscope.reproduction.reproduce")  # the package has it by name

    file = tmp_path / "study.toml"
    file.write_text(STUDY.replace("breaking_at:Breaks", "sgd").partition("[tuning]")[0] + ONE)
    monkeypatch.setattr(worker, "work", lambda *_, **__: worker.Worked(3, True, False, crashed=1))
    code, out, _ = optiscope("work", file, "--out", tmp_path / "out")
    assert code == 1
    assert "3 trials trained, 1 of them crashed; all is recorded" in out
    made = reproduce.Reproduction(tmp_path / "page.html", (Section("a", "b", crashed=(REASON,)),))
    monkeypatch.setattr(reproduce, "reproduce", lambda *_, **__: made)
    code, _, err = optiscope("reproduce", "cost")
    assert code == 1
    assert REASON in err


def test_a_worker_counts_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optiscope.records import StudyFolder
    from optiscope.study import load_study
    from optiscope.study.worker import work

    (tmp_path / "breaking_once.py").write_text(BREAKS)
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "study.toml"
    text = STUDY.partition("[tuning]")[0] + ONE.replace('"sgd"', '"breaking_once:Breaks"')
    file.write_text(text.replace("lr = 0.1", "lr = 0.1, after = 2"))
    asked = load_study(str(file))
    folder = StudyFolder(tmp_path / "out")
    folder.write_declaration(asked.to_dict())
    said: list[str] = []
    did = work(asked, folder, say=said.append)
    assert (did.trained, did.crashed, did.finished) == (1, 1, True)
    assert "crashed, at step 2: ValueError: no such thing" in said[-1]
