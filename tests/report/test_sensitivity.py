import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from optiscope.records import StudyFolder
from optiscope.report.appearance import looks
from optiscope.report.tables.tuning import sensitivity_table
from optiscope.stats.sensitivity import (
    Tried,
    edge_of_space,
    edges,
    numeric_names,
    sensitivity,
    tried,
)
from optiscope.stats.study_table import read_study
from optiscope.stats.tuning_curve import tuning_summaries

LOG = {"low": 1e-4, "high": 1.0, "log": True}
LINEAR = {"low": 0.0, "high": 1.0}


@dataclass(frozen=True)
class Case:
    space: Mapping[str, Any]
    value: float
    side: str | None
    suggestion: Mapping[str, Any] | None = None


EDGES = [
    Case(LOG, 0.9, "high", {"low": 1e-2, "high": 100.0, "log": True}),
    Case(LOG, 1e-4, "low", {"low": 1e-6, "high": 1e-2, "log": True}),
    Case(LOG, 0.5, None),
    Case({"low": 0.01, "high": 0.1, "log": True}, 0.1, "high", {"low": 10**-1.5, "high": 1.0}),
    Case(LINEAR, 0.98, "high", {"low": 0.5, "high": 1.5}),
    Case(LINEAR, 0.01, None),  # a quantity that starts at nothing cannot go lower
    Case({"low": 1.0, "high": 2.0}, 1.0, "low", {"low": 0.5, "high": 1.5}),
    Case({"choice": [0.1, 0.01, 0.001]}, 0.1, "high", {"choice": [0.01, 0.1, 1.0, 10.0]}),
    Case({"choice": [0.1, 0.01, 0.001]}, 0.001, "low", {"choice": [1e-5, 1e-4, 1e-3, 0.01]}),
    Case({"choice": [0.1, 0.01, 0.001]}, 0.01, None),
    Case({"choice": [16, 32]}, 32, None),  # two choices say nothing about an edge
    Case({}, 3.0, None),
]


@pytest.mark.parametrize("case", EDGES)
def test_a_choice_at_the_edge_comes_with_the_space_to_try(case: Case) -> None:
    edge = edge_of_space("lr", case.value, case.space)
    if case.side is None:
        assert edge is None
        return
    assert edge is not None
    assert edge.side == case.side
    for name, expected in (case.suggestion or {}).items():
        assert edge.suggestion[name] == pytest.approx(expected)


def test_the_last_value_tried_is_an_edge_too() -> None:
    values = [0.001, 0.01, 0.1, 0.5]
    edge = edge_of_space("lr", 0.5, LOG, values)
    assert edge is not None
    assert edge.side == "high"
    inner = edge_of_space("lr", 0.05, {"low": 1e-4, "high": 10.0, "log": True}, [0.001, 0.01, 0.05])
    assert inner is not None  # nothing was tried between it and the end: there, not beyond
    assert inner.suggestion == {"low": 0.01, "high": 10.0, "log": True}
    none_beyond = {"low": 0.0, "high": 0.1}
    assert edge_of_space("weight_decay", 0.0, none_beyond, [0.0, 0.05, 0.1]) is None
    assert edge_of_space("lr", 0.1, LOG, values) is None
    assert edge_of_space("lr", 0.5, LOG, [0.1, 0.5]) is None  # two trials say nothing


def test_edges_of_all_hyperparameters_that_hold_numbers() -> None:
    space = {"lr": LOG, "momentum": LINEAR, "nesterov": {"choice": [True, False]}}
    points = [
        Tried(k, {"lr": lr, "momentum": m, "nesterov": True}, 1.0, ("finished",), "", k == 1)
        for k, (lr, m) in enumerate([(0.01, 0.2), (0.1, 0.9), (0.5, 0.5)])
    ]
    (edge,) = edges(space, points)
    assert (edge.name, edge.value, edge.side) == ("momentum", 0.9, "high")
    assert edges(space, points[:1]) == ()


def _points(pairs: list[tuple[float, float]], chosen: float) -> list[Tried]:
    return [
        Tried(k, {"lr": rate}, value, ("finished",), "", rate == chosen)
        for k, (rate, value) in enumerate(pairs)
    ]


def test_failed_regions_and_good_range_by_hand(study: StudyFolder) -> None:
    tables = read_study(study, curves=False)
    points = _points(
        [(1.0, math.nan), (0.1, 0.50), (0.001, 2.0), (0.01, 0.52), (0.3, 0.54), (3.0, math.nan)],
        chosen=0.1,
    )
    found = sensitivity(tables, "SGD", "lr", points)
    assert found is not None
    assert found.values == (0.001, 0.01, 0.1, 0.3, 1.0, 3.0)
    assert (found.failed_below, found.failed_above) == (None, 1.0)
    assert found.chosen == 0.1
    assert found.edge is None
    assert found.good is not None
    assert (found.good.low, found.good.high, found.good.trials) == (0.01, 0.3, 3)
    assert found.good.factor == pytest.approx(30)


def test_a_failure_between_good_values_is_no_region(study: StudyFolder) -> None:
    tables = read_study(study, curves=False)
    points = _points([(0.01, 1.0), (0.1, math.nan), (1.0, 1.0)], chosen=0.01)
    found = sensitivity(tables, "SGD", "lr", points)
    assert found is not None
    assert (found.failed_below, found.failed_above) == (None, None)


def test_a_value_failed_where_all_its_trials_did(study: StudyFolder) -> None:
    """As in a grid of two hyperparameters."""
    tables = read_study(study, curves=False)
    pairs = [(0.1, 0.5), (0.1, 0.6), (1.0, 0.4), (1.0, math.nan), (3.0, math.nan), (3.0, math.nan)]
    found = sensitivity(tables, "SGD", "lr", _points(pairs, chosen=1.0))
    assert found is not None
    assert (found.failed_below, found.failed_above) == (None, 3.0)
    found = sensitivity(tables, "SGD", "lr", _points(pairs[:4], chosen=1.0))
    assert found is not None
    assert found.failed_above is None


def test_a_pruned_trial_has_not_failed_of_its_own() -> None:
    statuses = {("pruned",): True, ("finished", "pruned"): True, ("diverged", "pruned"): False}
    for one, pruned in statuses.items():
        assert Tried(0, {"lr": 0.1}, math.nan, one, "why", chosen=False).pruned is pruned
    assert not Tried(0, {"lr": 0.1}, 0.5, ("finished",), "", chosen=False).pruned


def test_the_best_of_a_metric_is_by_its_direction(study: StudyFolder) -> None:
    tables = read_study(study, curves=False)
    points = _points([(0.1, 0.2), (0.3, 0.8)], chosen=0.3)
    found = sensitivity(tables, "SGD", "lr", points)
    assert found is not None
    scored = replace(found, metric="valid_f1")
    summary = next(s for s in tuning_summaries(tables) if s.algorithm == "SGD")
    look = looks(tables.labels)["SGD"]
    row = sensitivity_table([(look, scored)], {"SGD": summary}, {}).rows[0]
    assert "0.8000" in [cell.text for cell in row.cells]


def test_where_everything_failed_nothing_is_good(study: StudyFolder) -> None:
    tables = read_study(study, curves=False)
    found = sensitivity(tables, "SGD", "lr", _points([(0.1, math.nan), (1.0, math.nan)], 0.1))
    assert found is not None
    assert found.good is None
    assert found.failed_above == 0.1
    assert sensitivity(tables, "SGD", "lr", []) is None


def test_tried_points_are_the_tuning_of_the_records(study: StudyFolder) -> None:
    tables = read_study(study, curves=False)
    points = tried(tables, "digits_mlp", "Adam")
    rows = tables.of("digits_mlp", "Adam", "tuning")
    assert [p.index for p in points] == list(range(8))
    for point, row in zip(points, rows.to_dict("records"), strict=True):
        assert point.hyperparameters == row["hyperparameters"]
        if row["complete"]:
            assert point.value == row["final_valid_loss"]
        else:
            assert point.failed
            assert point.reason == row["reason"]
    best = min((p for p in points if not p.failed), key=lambda p: p.value)
    assert [p for p in points if p.chosen] == [best]


def test_names_that_hold_numbers_learning_rate_first() -> None:
    space = {
        "momentum": {"low": 0.0, "high": 1.0},
        "nesterov": {"choice": [True, False]},
        "lr": LOG,
        "betas": {"choice": [[0.9, 0.99]]},
        "k": {"choice": [4, 16]},
    }
    assert numeric_names(space) == ["lr", "momentum", "k"]


def test_weights_of_averages_stay_below_one() -> None:
    edge = edge_of_space("momentum", 0.99, {"low": 0.8, "high": 0.99})
    assert edge is not None
    assert edge.suggestion["high"] == pytest.approx(0.999)
    edge = edge_of_space(
        "beta2", 0.999, {"low": 0.9, "high": 0.9999, "log": True}, [0.9, 0.99, 0.999]
    )
    assert edge is not None
    assert edge.suggestion["high"] < 1
    edge = edge_of_space("momentum", 0.99, {"choice": [0.5, 0.9, 0.99]})
    assert edge is not None
    assert edge.suggestion == {"choice": [0.9, 0.99, pytest.approx(0.999)]}
