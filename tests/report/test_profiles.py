import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic import make_study, methods

from optiscope.records import Status, StudyFolder
from optiscope.report.appearance import looks
from optiscope.report.content import assemble
from optiscope.report.figures.groups import groups_of_study
from optiscope.report.figures.panel import FigureGroup
from optiscope.stats.claims import claims_from
from optiscope.stats.profiles import performance_profile, ranks, target, target_costs
from optiscope.stats.study_table import StudyTables, read_study

INF = math.inf


def test_a_profile_by_hand() -> None:
    profile = performance_profile(
        {"p": {"a": 2.0, "b": 4.0}, "q": {"a": 9.0, "b": 3.0}, "r": {"a": INF, "b": 5.0}}
    )
    assert profile.factors.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(profile.shares["a"], [1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(profile.shares["b"], [2 / 3, 1.0, 1.0])
    assert profile.unsolved == ()


def test_a_problem_that_nobody_solved_counts_against_everybody() -> None:
    profile = performance_profile({"p": {"a": 1.0, "b": 2.0}, "q": {"a": INF, "b": INF}})
    assert profile.shares["a"].tolist() == [0.5, 0.5]
    assert profile.shares["b"].tolist() == [0.0, 0.5]
    assert profile.unsolved == ("q",)


@pytest.mark.parametrize("costs", [{}, {"p": {"a": 1.0}, "q": {"b": 1.0}}])
def test_a_profile_needs_every_cost(costs: dict[str, dict[str, float]]) -> None:
    with pytest.raises(ValueError, match="needs the cost of every algorithm on every problem"):
        performance_profile(costs)


def test_the_target_is_the_median_of_the_reference(study: StudyFolder) -> None:
    tables = read_study(study)
    rows = tables.of("digits_mlp", "SGD", "reporting")
    assert target(tables, "digits_mlp") == np.median(rows["final_test_accuracy"])


def test_costs_are_the_first_epoch_at_the_target(study: StudyFolder) -> None:
    tables = read_study(study)
    goal = target(tables, "digits_mlp")
    found = {(c.problem, c.algorithm): c for c in target_costs(tables, tables.labels)}
    cost = found["digits_mlp", "momentum"]
    rows = tables.curve_groups["digits_mlp", "momentum", "test", "accuracy"]
    runs = tables.of("digits_mlp", "momentum", "reporting").set_index("seed")
    for seed, epochs, seconds in zip(runs.index, cost.epochs, cost.seconds, strict=True):
        if seed == 101:
            assert (epochs, seconds) == (INF, INF)
            continue
        own = rows[rows["seed"] == seed]
        first = own["epoch"][own["value"] >= goal].min()
        assert epochs == first
        assert seconds == pytest.approx(first / 10 * runs.loc[seed, "training_wall"])
    assert cost.reached == 4
    assert math.isfinite(cost.median_epochs)


def test_missing_the_target_is_missing_it(tmp_path: Path) -> None:
    failing = {("momentum", "digits_mlp", s): Status.DIVERGED for s in (100, 101, 102)}
    folder = make_study(tmp_path, algorithms=methods(2), budget=2, failing=failing)
    tables = read_study(folder)
    found = {c.algorithm: c for c in target_costs(tables, tables.labels)}
    assert found["momentum"].median_epochs == INF
    assert found["momentum"].median_seconds == INF


def test_a_reference_that_mostly_fails_sets_no_target(tmp_path: Path) -> None:
    failing = {("SGD", "digits_mlp", s): Status.DIVERGED for s in (100, 101, 102)}
    folder = make_study(tmp_path, algorithms=methods(2), budget=2, failing=failing)
    tables = read_study(folder)
    assert not math.isfinite(target(tables, "digits_mlp"))
    assert target_costs(tables, tables.labels) == []


def figures_over_all(tables: StudyTables) -> list[FigureGroup]:
    return groups_of_study(assemble(tables, looks(tables.labels), claims_from(tables.evidence)))


def test_the_profile_says_which_problems_set_no_target(tmp_path: Path) -> None:
    failing = {("SGD", "digits_conv", s): Status.DIVERGED for s in (100, 101, 102)}
    folder = make_study(
        tmp_path,
        algorithms=methods(2),
        budget=2,
        problems=("digits_mlp", "digits_conv"),
        failing=failing,
    )
    tables = read_study(folder)
    groups = figures_over_all(tables)
    profile = next(group for group in groups if group.name == "all-profile")
    assert "Left out: digits_conv, as most runs of SGD failed there" in profile.note
    assert "digits_mlp" not in profile.note


def test_a_problem_that_an_algorithm_has_not_run_on_is_left_out(tmp_path: Path) -> None:
    folder = make_study(
        tmp_path, algorithms=methods(2), budget=2, problems=("digits_mlp", "digits_conv"), missing=5
    )
    tables = read_study(folder)
    groups = figures_over_all(tables)
    profile = next(group for group in groups if group.name == "all-profile")
    assert "Left out: digits_conv, where an algorithm has not run yet." in profile.note
    assert "Share of 1 problem" in profile.note
    folder.write_ledger([e for e in folder.ledger() if e.algorithm == "SGD" or e.role == "tuning"])
    tables = read_study(folder)
    groups = figures_over_all(tables)
    assert [group.name for group in groups if group.name == "all-profile"] == []


def test_mean_ranks_are_scipys_with_failures_last(study: StudyFolder) -> None:
    tables = read_study(study, curves=False)
    labels = tables.labels
    found = ranks(tables, labels, generator=np.random.default_rng(0))
    expected = []
    for problem, sign, metric in (("digits_mlp", -1, "accuracy"), ("digits_conv", 1, "loss")):
        frame = tables.runs[
            (tables.runs["problem"] == problem) & (tables.runs["role"] == "reporting")
        ]
        frame = frame.assign(
            cost=np.where(frame["complete"], sign * frame[f"final_test_{metric}"], np.inf)
        )
        wide = frame[frame["status"] != "missing"].pivot(
            index="seed", columns="algorithm", values="cost"
        )
        wide = wide[labels].dropna()
        expected.append(stats.rankdata(wide.to_numpy(), axis=1).mean(axis=0))
    np.testing.assert_allclose([r.mean for r in found], np.mean(expected, axis=0))
    for k, rank in enumerate(found):
        assert rank.without_one == (
            pytest.approx(min(e[k] for e in expected)),
            pytest.approx(max(e[k] for e in expected)),
        )
        assert rank.interval[0] <= rank.mean <= rank.interval[1]
    assert sum(r.mean for r in found) == pytest.approx(1 + 2 + 3 + 4)


def test_ranks_that_every_seed_agrees_on_have_no_width(tmp_path: Path) -> None:
    folder = make_study(tmp_path, algorithms=methods(2), budget=2)
    tables = read_study(folder, curves=False)
    tables.runs.loc[tables.runs["algorithm"] == "SGD", "final_test_accuracy"] = 0.99
    first, second = ranks(tables, tables.labels, generator=np.random.default_rng(0))
    assert (first.mean, first.interval) == (1.0, (1.0, 1.0))
    assert (second.mean, second.interval) == (2.0, (2.0, 2.0))


def test_the_reference_reaches_its_own_target_with_an_even_number_of_seeds(tmp_path: Path) -> None:
    tables = read_study(make_study(tmp_path, algorithms=methods(2), seeds=(101, 102, 103, 104)))
    reference = str(tables.declaration["reference"])
    own = [c for c in target_costs(tables, tables.labels) if c.algorithm == reference]
    assert own
    assert all(cost.reached >= 3 or math.isfinite(cost.median_epochs) for cost in own)


def test_what_is_reached_before_training_is_solved() -> None:
    profile = performance_profile(
        {"p": {"ref": 0.0, "b": 1.0}, "q": {"ref": 2.0, "b": 1.0}, "r": {"ref": 0.0, "b": 0.0}}
    )
    assert profile.unsolved == ()
    np.testing.assert_allclose(profile.shares["ref"], [2 / 3, 1.0])
    np.testing.assert_allclose(profile.shares["b"], [2 / 3, 2 / 3])
