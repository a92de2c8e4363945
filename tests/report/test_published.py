import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import make_study, methods

from optiscope.records import Measurement, Run, Status
from optiscope.report import write_report
from optiscope.stats.importers import foreign_run, keep_imported
from optiscope.stats.published import published_settings


def _run(
    seed: int,
    values: list[float],
    optimizer: str = "Adam",
    std: float | None = None,
    rate: float = 0.1,
) -> Run:
    rows = [Measurement(-1, float(e), "test", "accuracy", v) for e, v in enumerate(values)]
    if std is not None:
        rows += [Measurement(-1, m.epoch, "test", "accuracy_std", std) for m in rows]
    return foreign_run(
        source="a paper",
        problem="digits_mlp",
        optimizer=optimizer,
        hyperparameters={"lr": rate},
        seed=seed,
        epochs=len(values) - 1,
        batch_size=64,
        metrics=rows,
    )


def test_runs_with_several_seeds_have_mean_and_range() -> None:
    runs = [_run(1, [0.1, 0.5, 0.8]), _run(2, [0.1, 0.7, 0.9])]
    (setting,) = published_settings(runs, "digits_mlp")
    found = setting.curve("test", "accuracy")
    assert found is not None
    np.testing.assert_allclose(found.mean, [0.1, 0.6, 0.85])
    np.testing.assert_allclose(found.low, [0.1, 0.5, 0.8])
    np.testing.assert_allclose(found.high, [0.1, 0.7, 0.9])
    assert setting.final("test_accuracy") == pytest.approx(0.85)


def test_a_published_mean_has_its_published_deviation() -> None:
    (setting,) = published_settings([_run(-1, [0.1, 0.5], std=0.02)], "digits_mlp")
    found = setting.curve("test", "accuracy")
    assert found is not None
    np.testing.assert_allclose(found.high - found.mean, 0.02)
    np.testing.assert_allclose(found.mean - found.low, 0.02)


def test_without_a_spread_none_is_invented() -> None:
    (setting,) = published_settings([_run(-1, [0.1, 0.5])], "digits_mlp")
    found = setting.curve("test", "accuracy")
    assert found is not None
    assert np.isnan(found.low).all()
    assert setting.curve("test", "loss") is None
    (final_only,) = published_settings([_run(-1, [0.9])], "digits_mlp")
    assert final_only.curve("test", "accuracy") is None


def test_settings_are_told_apart_and_other_problems_left_out() -> None:
    runs = [_run(1, [0.1, 0.2]), _run(1, [0.1, 0.3], rate=0.2), _run(1, [0.1, 0.4], "SGD")]
    assert len(published_settings(runs, "digits_mlp")) == 3
    assert published_settings(runs, "elsewhere") == []


def test_published_runs_stand_in_the_page_but_in_no_claim(tmp_path: Path) -> None:
    folder = make_study(tmp_path, algorithms=methods(2), budget=2, epochs=4, seeds=(100, 101))
    before = write_report(folder).read_text(encoding="utf-8")
    keep_imported(folder, [_run(k, [0.1, 0.5, 0.6, 0.7, 0.75 + k / 100]) for k in (1, 2)])
    after = write_report(folder).read_text(encoding="utf-8")
    assert "Adam (lr 0.1), published" not in before
    assert "Adam (lr 0.1), published" in after
    assert "a paper" in after
    assert "76.50 %" in after
    assert after.count("against") == before.count("against")


def test_failed_runs_are_not_averaged_with_the_others() -> None:
    good, bad = _run(1, [0.1, 0.5, 0.9]), _run(2, [0.1, 0.5, 0.5])
    bad = replace(bad, status=Status.DIVERGED, metrics=bad.metrics[:2])
    (setting,) = published_settings([good, bad], "digits_mlp")
    assert math.isnan(setting.final("test_accuracy"))
    curve = setting.curve("test", "accuracy")
    assert curve is not None
    assert curve.epochs.tolist() == [0.0, 1.0]
