import math

import pytest

from optiscope.report.number_text import (
    axis_name,
    metric_text,
    plain_text,
    point_text,
    rate_text,
    seconds_text,
    significant,
    space_text,
    spread_text,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0312345, "0.0312"),
        (1234.5, "1234"),
        (0.1, "0.1"),
        (1.0, "1"),
        (0.0, "0"),
        (-2.5, "-2.5"),
        (1.2e-5, "1.2·10⁻⁵"),
        (1e-6, "10⁻⁶"),
        (3e7, "3·10⁷"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (0.00099999, "0.001"),
        (9.9999e-5, "0.0001"),
    ],
)
def test_significant(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (8.5e-4, "850 µs"),
        (0.0123, "12.3 ms"),
        (4.2, "4.2 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (math.nan, "–"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_metrics_carry_their_unit() -> None:
    assert metric_text(0.89123, "accuracy") == "89.12 %"
    assert metric_text(0.41234, "loss") == "0.4123"
    assert metric_text(1234567.0, "loss") == "1.235·10⁶"
    assert metric_text(math.inf, "loss") == "∞"
    assert spread_text(0.0123, "valid_accuracy") == "1.23"
    assert spread_text(0.0123, "valid_loss") == "0.012"
    assert axis_name("valid", "loss", log=True) == "validation loss (per sample, log)"
    assert axis_name("test", "accuracy") == "test accuracy (%)"


def test_points_and_spaces_in_words() -> None:
    point = {"lr": 0.03125, "nesterov": True, "betas": [0.9, 0.99]}
    assert point_text(point) == "lr 0.0312, nesterov True, betas [0.9, 0.99]"
    assert point_text({}) == "–"
    assert space_text({"low": 1e-5, "high": 0.1, "log": True}) == "10⁻⁵ to 0.1 (log)"
    assert space_text({"choice": [16, 32]}) == "one of 16, 32"
    assert rate_text(1e-4) == "0.0001"
    assert plain_text({"threads": 2, "flags": [True, None]}) == "threads 2, flags True, –"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0009996, "1 ms"), (0.9997, "1 s"), (59.97, "1 min 0 s"), (3599.9, "1 h 0 min")],
)
def test_seconds_that_round_up_to_the_next_unit(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_small_losses_keep_their_digits() -> None:
    assert metric_text(0.00012345, "loss") == "0.0001234"
    assert metric_text(0.0, "loss") == "0.0000"
