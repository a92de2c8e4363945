import math

import numpy as np
import pytest
from scipy import stats
from synthetic import methods

from optiscope.records import StudyFolder
from optiscope.stats.study_table import read_study
from optiscope.stats.summary import costs, failures, results


def test_mean_deviation_and_interval_are_numpys_and_scipys(study: StudyFolder) -> None:
    tables = read_study(study, curves=False)
    found = {(r.problem, r.algorithm): r for r in results(tables)}
    result = found["digits_mlp", "SGD"]
    rows = tables.of("digits_mlp", "SGD", "reporting")
    values = rows["final_test_accuracy"].to_numpy()
    assert result.metric == "accuracy"
    assert result.values == dict(zip(rows["seed"], values, strict=True))
    assert result.mean == pytest.approx(np.mean(values))
    assert result.deviation == pytest.approx(np.std(values, ddof=1))
    assert result.interval == pytest.approx(
        stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    )
    assert result.range == (values.min(), values.max())
    assert result.all_complete


def test_failed_and_missing_runs_are_counted_and_have_no_value(study: StudyFolder) -> None:
    found = {(r.problem, r.algorithm): r for r in results(read_study(study, curves=False))}
    diverged = found["digits_mlp", "momentum"]
    assert diverged.failed == {"diverged": 1}
    assert set(diverged.values) == {100, 102, 103, 104}
    assert not diverged.all_complete
    last = found["digits_conv", "Adam"]
    assert last.failed == {"crashed": 1, "missing": 1}
    assert last.metric == "loss"


def test_one_seed_has_no_spread(alone: StudyFolder) -> None:
    (result,) = results(read_study(alone, curves=False))
    assert math.isnan(result.deviation)
    assert all(math.isnan(end) for end in result.interval)
    assert math.isfinite(result.mean)


def test_time_ratios_are_paired_by_seed_and_leave_evaluation_out(study: StudyFolder) -> None:
    tables = read_study(study, curves=False)
    found = {(c.problem, c.algorithm): c for c in costs(tables)}
    cost = found["digits_mlp", "Nesterov"]
    own = tables.of("digits_mlp", "Nesterov", "reporting").set_index("seed")
    reference = tables.of("digits_mlp", "SGD", "reporting").set_index("seed")
    for ratio, seed in zip(cost.ratios, own.index, strict=True):
        expected = [
            sum(rows.loc[seed, f"wall_{p}"] for p in ("data", "forward_backward", "optimizer"))
            / rows.loc[seed, "steps"]
            for rows in (own, reference)
        ]
        assert ratio == pytest.approx(expected[0] / expected[1])
    assert found["digits_mlp", "SGD"].ratios == pytest.approx([1.0] * 5)
    assert cost.gradient_evaluations == 1
    assert cost.phases["evaluation"] > 0
    invented = methods(4)[2].cost / methods(4)[0].cost
    optimizer = cost.phases["optimizer"] / found["digits_mlp", "SGD"].phases["optimizer"]
    assert optimizer == pytest.approx(invented, rel=0.1)


def test_failures_hold_every_run_that_did_not_reach_its_end(study: StudyFolder) -> None:
    tables = read_study(study, curves=False)
    bad = failures(tables)
    expected = tables.runs[~tables.runs["complete"] & (tables.runs["status"] != "missing")]
    assert set(bad["trial_hash"]) == set(expected["trial_hash"])
    assert list(bad["role"])[:2] == ["reporting", "reporting"]
