from pathlib import Path

import numpy as np
import pytest
from synthetic import make_study, methods

from optiscope.records import Status, StudyFolder
from optiscope.stats.curves import curve, measured
from optiscope.stats.study_table import StudyTables, read_study


def _rows(tables: StudyTables, label: str) -> dict[int, np.ndarray]:
    rows = tables.curve_groups["digits_mlp", label, "test", "loss"]
    return {int(s): g["value"].to_numpy() for s, g in rows.groupby("seed")}


def test_mean_and_range_are_over_the_runs_that_reached_their_end(study: StudyFolder) -> None:
    tables = read_study(study)
    found = curve(tables, "digits_mlp", "momentum", "test", "loss")
    assert found is not None
    by_seed = _rows(tables, "momentum")
    diverged = by_seed.pop(101)
    values = np.array(list(by_seed.values()))
    np.testing.assert_array_equal(found.epochs, np.arange(11))
    np.testing.assert_allclose(found.mean, values.mean(axis=0))
    np.testing.assert_array_equal(found.low, values.min(axis=0))
    np.testing.assert_array_equal(found.high, values.max(axis=0))
    assert found.complete == 4
    (failed,) = found.failed
    assert (failed.seed, failed.status, failed.last_epoch) == (101, "diverged", 3.0)
    np.testing.assert_array_equal(failed.values, diverged)


def test_a_run_that_stopped_early_keeps_its_last_value(tmp_path: Path) -> None:
    failing = {("SGD", "digits_mlp", 101): Status.STOPPED}
    folder = make_study(tmp_path, algorithms=methods(1), budget=1, failing=failing)
    tables = read_study(folder)
    found = curve(tables, "digits_mlp", "SGD", "test", "loss")
    assert found is not None
    assert not found.failed
    by_seed = _rows(tables, "SGD")
    assert {seed: len(values) for seed, values in by_seed.items()}[101] == 4
    whole = np.array([np.pad(v, (0, 11 - len(v)), mode="edge") for v in by_seed.values()])
    np.testing.assert_allclose(found.mean, whole.mean(axis=0))
    np.testing.assert_array_equal(found.high, whole.max(axis=0))
    assert found.mean[-1] == pytest.approx(tables.runs["final_test_loss"].tail(5).mean())


def test_a_value_missing_in_the_middle_is_not_invented(tmp_path: Path) -> None:
    tables = read_study(make_study(tmp_path, algorithms=methods(1), budget=1))
    rows = tables.curves
    at = (rows["split"] == "test") & (rows["name"] == "loss") & (rows["epoch"] == 3)
    rows.loc[at & (rows["seed"] == 101), "value"] = np.nan
    others = rows[at & (rows["seed"] != 101)]["value"]
    found = curve(tables, "digits_mlp", "SGD", "test", "loss")
    assert found is not None
    assert found.mean[3] == pytest.approx(others.mean())


def test_what_was_never_measured_has_no_curve(study: StudyFolder) -> None:
    tables = read_study(study)
    assert curve(tables, "digits_mlp", "SGD", "test", "perplexity") is None
    assert ("optimizer", "lr") in measured(tables, "digits_mlp")
    assert measured(tables, "elsewhere") == []


def test_values_that_are_not_finite_are_left_out_of_a_line_but_mark_its_end(
    study: StudyFolder,
) -> None:
    tables = read_study(study)
    rows = tables.curves
    at = (rows["algorithm"] == "momentum") & (rows["seed"] == 101) & (rows["epoch"] == 3)
    rows.loc[at, "value"] = np.nan
    found = curve(tables, "digits_mlp", "momentum", "test", "loss")
    assert found is not None
    assert found.failed[0].epochs.tolist() == [0.0, 1.0, 2.0]
    assert found.failed[0].last_epoch == pytest.approx(3.0)
