"""A run as plain values, and its summaries."""

from __future__ import annotations

import json
import math

import pytest
from record_examples import METRICS, run

from optiscope.records import Measurement, Run, Seconds, Status, summarise


def test_a_run_survives_json_without_nan() -> None:
    text = json.dumps(run().to_dict(), allow_nan=False)
    back = Run.from_dict(json.loads(text), METRICS)
    assert math.isnan(back.final["batch_loss"])
    assert json.dumps(back.to_dict()) == text


def test_final_is_the_last_value_and_best_the_best_finite_one() -> None:
    rows = [
        Measurement(0, 0.0, "test", "loss", 3.0),
        Measurement(5, 1.0, "test", "loss", 1.0),
        Measurement(9, 2.0, "test", "loss", math.inf),
        Measurement(0, 0.0, "test", "accuracy", 0.2),
        Measurement(5, 1.0, "test", "accuracy", 0.8),
        Measurement(9, 2.0, "test", "accuracy", 0.5),
    ]
    final, best = summarise(rows)
    assert final == {"test_loss": math.inf, "test_accuracy": 0.5}
    assert best == {"test_loss": 1.0, "test_accuracy": 0.8}


def test_what_was_never_finite_has_no_best() -> None:
    assert summarise([Measurement(0, 0.0, "test", "loss", math.nan)])[1] == {}


def test_training_seconds_leave_out_evaluation() -> None:
    values = run().to_dict()
    values["seconds"]["evaluation"] = {"wall": 100.0, "cpu": 100.0}
    values["seconds"]["instruments"] = {"wall": 100.0, "cpu": 100.0}
    assert Run.from_dict(values).training_seconds == Seconds(1.5, 2.25)


def test_a_curve_has_the_epochs_and_values_of_one_metric() -> None:
    assert run().curve("valid", "accuracy") == ([0.0, 1.0], [0.1, 0.9])


@pytest.mark.parametrize("status", Status)
def test_only_runs_that_reached_an_end_of_their_own_are_complete(status: Status) -> None:
    assert status.complete == (status in (Status.FINISHED, Status.STOPPED))
