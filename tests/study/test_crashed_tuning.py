"""An optimizer whose code fails in every tuning trial is not trained any further."""

from __future__ import annotations

from pathlib import Path

from optiscope.records import Run, Status, Trial
from optiscope.study import load_study
from optiscope.study.plan import Plan

STUDY = """\
name = "crashing"
question = "?"
problems = ["digits_logreg"]
seeds = [1, 2, 3]
[tuning]
budget = 2
[[algorithms]]
optimizer = "sgd"
[[algorithms]]
optimizer = "adam"
"""


def ended(trial: Trial, status: Status) -> Run:
    final = {"valid_loss": 0.5} if status.complete else {}
    return Run(trial, status, str(status), 0, {}, {}, None, {}, "", final=final)


def planned(tmp_path: Path, adam: Status) -> list[tuple[str, str]]:
    """Labels and roles of all trials, where Adam's tuning ends like this."""
    (tmp_path / "study.toml").write_text(STUDY)
    plan = Plan(load_study(tmp_path / "study.toml"))
    while trials := plan.ask():
        for trial in trials:
            plan.tell(ended(trial, adam if trial.optimizer == "adam" else Status.FINISHED))
    return [(entry.algorithm, entry.role) for entry in plan.entries]


def test_nothing_is_reported_where_every_tuning_trial_crashed(tmp_path: Path) -> None:
    entries = planned(tmp_path, Status.CRASHED)
    assert entries.count(("adam", "tuning")) == 2
    assert entries.count(("adam", "reporting")) == 0
    assert entries.count(("sgd", "reporting")) == 3


def test_divergence_is_an_outcome_that_is_reported(tmp_path: Path) -> None:
    for status in (Status.DIVERGED, Status.TIMED_OUT, Status.FINISHED):
        assert planned(tmp_path, status).count(("adam", "reporting")) == 3
