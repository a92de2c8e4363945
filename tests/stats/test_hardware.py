"""Seconds of runs on unlike hardware, of resumed runs and of shared devices enter no comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optiscope import control_groups
from optiscope.records import Run, StudyFolder
from optiscope.report import summary_json, summary_table
from optiscope.report.tables.runs import cost_table
from optiscope.stats.claims import claim
from optiscope.stats.hardware import hardware, time_refusal, untimed
from optiscope.stats.profiles import target_costs
from optiscope.stats.refusal import Refusal
from optiscope.stats.study_table import read_study
from optiscope.stats.summary import costs
from optiscope.train.environment import environment
from stats.small_study import PROBLEM, TWO, study

HERE = {"processor": "A 2.5GHz", "cores": 2, "threads": 1, "device": "cpu", "sessions": [{}]}
UNLIKE = {
    "processor": {"processor": "B 2.1GHz"},
    "GPU": {"device": "NVIDIA H200"},
    "cores": {"cores": 1},
    "threads": {"threads": 2},
}
ALONE = {
    "resumed": {"sessions": [{"from_step": 0}, {"from_step": 7}]},
    "packed": {"packing": {"gpu": 0, "per_gpu": 4, "mps": False}},
}


def on(path: Path, where: Callable[[Run], Mapping[str, Any]]) -> StudyFolder:
    """A study whose runs are of the environment that ``where`` changes."""
    folder = study(path / "study", TWO)
    for name in list(folder.store.hashes()):
        run = folder.store.read(name)
        assert isinstance(run, Run)
        folder.store.set_aside(name, even_good=True)
        folder.store.write(replace(run, environment={**HERE, **where(run)}))
    return folder


def adam_only(change: Mapping[str, Any]) -> Callable[[Run], Mapping[str, Any]]:
    return lambda run: change if run.trial.optimizer == "adam" else {}


def test_on_the_same_hardware_ratios_are_stated(tmp_path: Path) -> None:
    tables = read_study(on(tmp_path, lambda run: {}))
    assert all(len(cost.ratios) == 5 and cost.refused is None for cost in costs(tables))
    assert all(math.isfinite(cost.median_seconds) for cost in target_costs(tables, ["Adam"]))


@pytest.mark.parametrize("change", UNLIKE.values(), ids=UNLIKE)
def test_on_unlike_hardware_no_ratio_is_stated_and_the_reason_is(
    change: dict[str, Any], tmp_path: Path
) -> None:
    folder = on(tmp_path, adam_only(change))
    tables = read_study(folder)
    for cost in costs(tables):
        assert cost.ratios == ()
        assert cost.refused is not None
        assert cost.refused.startswith(f"the runs on {PROBLEM} are of different hardware, ")
        assert hardware(HERE) in cost.refused
        assert hardware({**HERE, **change}) in cost.refused
    for target in target_costs(tables, ["Adam"]):
        assert math.isnan(target.median_seconds)
        assert math.isfinite(target.median_epochs)
    for result in summary_json(folder)["results"]:
        assert result["relative_to_reference"] is None
        assert "different hardware" in result["time_refused"]
    assert "different hardware" in str(summary_table(folder).caption)
    answer = claim("Adam faster than SGD", folder)
    assert isinstance(answer, Refusal)
    assert answer.rule == "time"
    assert "different hardware" in answer.reason
    assert f"optiscope time {PROBLEM} --optimizers adam,sgd" in answer.reason


def test_the_page_says_why_there_is_no_ratio(tmp_path: Path) -> None:
    from optiscope.report.appearance import looks

    tables = read_study(on(tmp_path, adam_only(UNLIKE["processor"])))
    table = cost_table(costs(tables), looks(["Adam", "SGD"]), "Adam")
    assert "No ratio is stated: the runs on" in table.caption


@pytest.mark.parametrize("change", ALONE.values(), ids=ALONE)
def test_runs_not_timed_alone_count_for_losses_and_not_for_seconds(
    change: dict[str, Any], tmp_path: Path
) -> None:
    folder = on(tmp_path, lambda run: change if run.trial.seed == 101 else {})
    tables = read_study(folder)
    assert [len(cost.ratios) for cost in costs(tables)] == [4, 4]
    assert [len(r["values"]) for r in summary_json(folder)["results"]] == [5, 5]
    assert all(math.isfinite(cost.median_seconds) for cost in target_costs(tables, ["Adam"]))


@pytest.mark.parametrize("change", ALONE.values(), ids=ALONE)
def test_where_no_run_was_timed_alone_nothing_is_said_of_time(
    change: dict[str, Any], tmp_path: Path
) -> None:
    folder = on(tmp_path, lambda run: change)
    assert costs(read_study(folder, curves=False)) == []
    answer = claim("SGD slower than Adam", folder)
    assert isinstance(answer, Refusal)
    assert "timed alone" in answer.reason
    assert str(untimed({**HERE, **change})) in answer.reason


@pytest.mark.parametrize(
    "question",
    ["Adam faster than SGD", "Adam is slower than SGD on fmnist_2c2d", "sgd is FASTER THAN adam"],
)
def test_a_study_supports_no_claim_about_time(question: str, tmp_path: Path) -> None:
    answer = claim(question, on(tmp_path, lambda run: {}))
    assert isinstance(answer, Refusal)
    assert answer.rule == "time"
    assert "not in turns" in answer.reason
    assert answer.study_that_would_answer is None


def test_labels_may_hold_the_verb(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", {"A faster than light": TWO["Adam"], "SGD": TWO["SGD"]})
    answer = claim("A faster than light better than SGD", folder)
    assert not isinstance(answer, Refusal)


def test_what_is_not_recorded_is_not_different() -> None:
    assert hardware({}) == "hardware that is not recorded"
    assert hardware(HERE) == "A 2.5GHz, 2 cores, 1 thread"
    assert time_refusal("p", []) is None
    assert time_refusal("p", ["x", "x"], [None, "resumed after an interruption"]) is None
    assert untimed({"sessions": "odd", "packing": {}}) is None


def test_a_record_says_what_the_quota_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "own").write_text("0::/\n")
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path)
    monkeypatch.setattr(control_groups, "OWN", tmp_path / "own")
    assert environment(torch.device("cpu"))["cores"] == 1
