"""Figures known from elsewhere that a study is to reach."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic import make_study, methods

from optiscope.records import Status, StudyFolder
from optiscope.report.answers import goal_text
from optiscope.report.study_report import write_report
from optiscope.report.terminal import summary_json
from optiscope.stats.goals import GoalResult, goal_results
from optiscope.stats.study_table import read_study
from optiscope.stats.summary import results

MEANING = "a mean published elsewhere"


def _folder(
    path: Path,
    value: float,
    count: int = 2,
    failing: dict[tuple[str, str, int], Status] | None = None,
) -> StudyFolder:
    algorithms = [replace(method, tuned=False) for method in methods(count)]
    folder = make_study(path, algorithms=algorithms, failing=failing)
    goal = {"problem": "digits_mlp", "value": value, "meaning": MEANING}
    folder.write_declaration({**folder.declaration(), "goals": [goal]})
    return folder


def _found(folder: StudyFolder) -> list[GoalResult]:
    tables = read_study(folder)
    return goal_results(tables, results(tables))


def test_verdict_interval_and_p_value_are_students_with_bonferroni(tmp_path: Path) -> None:
    tables = read_study(_folder(tmp_path, 0.6))
    first = results(tables)[0]
    values = np.array(list(first.values.values()))
    low, high = values.mean() - 0.2, values.mean() + 0.2
    near = float(values.mean() + 0.1 * values.std(ddof=1) / math.sqrt(len(values)))
    for value, verdict in ((low, "reached"), (high, "missed"), (near, "undecided")):
        found = _found(_folder(tmp_path / verdict, float(value)))[0]
        assert found.verdict == verdict
        assert found.p_value == pytest.approx(stats.ttest_1samp(values, value).pvalue)
        assert found.level == 0.05 / 2
        half = stats.t.ppf(1 - 0.025 / 2, len(values) - 1) * stats.sem(values)
        assert found.interval == pytest.approx((values.mean() - half, values.mean() + half))


def test_the_epoch_is_the_first_at_which_the_mean_is_there(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "low", 0.5)
    tables = read_study(folder)
    rows = tables.curves.query("algorithm == 'SGD' and split == 'test' and name == 'accuracy'")
    means = rows.groupby("epoch")["value"].mean()
    found = _found(folder)[0]
    assert found.epoch == means.index[means >= 0.5][0]
    assert f"the mean is there after {found.epoch:g} epochs" in goal_text(found)
    assert _found(_folder(tmp_path / "high", 0.999))[0].epoch == math.inf


def test_a_failed_run_cannot_be_held_against_a_goal(tmp_path: Path) -> None:
    failing = {("SGD", "digits_mlp", 101): Status.DIVERGED}
    sgd, momentum = _found(_folder(tmp_path, 0.5, failing=failing))
    assert sgd.verdict == "failed"
    assert goal_text(sgd).endswith("a run failed.")
    assert momentum.verdict == "reached"


def test_runs_that_are_still_to_come_have_not_failed(tmp_path: Path) -> None:
    folder = _folder(tmp_path, 0.5, count=1)
    folder.write_declaration({**folder.declaration(), "seeds": [*range(100, 107)]})
    (sgd,) = _found(folder)
    assert sgd.verdict == "unfinished"
    assert goal_text(sgd).endswith("its runs are not finished.")


def test_page_and_json_say_it(tmp_path: Path) -> None:
    folder = _folder(tmp_path, 0.5, count=1)
    page = write_report(folder).read_text()
    assert f"SGD reaches the goal of 50.00 % ({MEANING})" in page
    assert "nothing to compare it with" not in page
    assert f"goal: {MEANING}" in page
    plain = summary_json(folder)["goals"]
    assert [(g["algorithm"], g["verdict"]) for g in plain] == [("SGD", "reached")]


def test_stages_share_the_level(tmp_path: Path) -> None:
    folder = _folder(tmp_path, 0.9)
    once = _found(folder)[0].level
    staged = {**folder.declaration(), "until_decided": {"stages": [3, 4, 5]}}
    folder.write_declaration(staged)
    assert _found(folder)[0].level == pytest.approx(once / 3)
