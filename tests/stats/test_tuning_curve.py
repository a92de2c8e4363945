"""Expected best of n trials against brute force, flags at the edge, bias of the winner."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiscope.stats.study_table import read_study
from optiscope.stats.tuning_curve import expected_best, selection_bias, tuning_summaries
from stats.small_study import algorithm, study

NAN = math.nan
ADAM = (0.915, 0.911, 0.917, 0.909, 0.914)
SGD = (0.901, 0.899, 0.905, 0.893, 0.902)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-5, 5) | st.just(NAN), min_size=1, max_size=7), st.booleans())
def test_it_is_the_mean_over_all_subsets(values: list[float], higher: bool) -> None:
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        with pytest.raises(ValueError, match="every trial failed"):
            expected_best(values, 1, higher_is_better=higher)
        return
    worst, best = (min(finite), max) if higher else (max(finite), min)
    charged = [v if math.isfinite(v) else worst for v in values]
    curve = []
    for n in range(1, len(values) + 1):
        brute = np.mean([best(subset) for subset in combinations(charged, n)])
        curve.append(expected_best(values, n, higher_is_better=higher))
        assert curve[-1] == pytest.approx(brute, abs=1e-12)
    assert curve[-1] == best(charged)
    steps = np.diff(curve) * (1 if higher else -1)
    assert (steps >= -1e-12).all()


def test_failed_trials_are_charged() -> None:
    half = [0.9, NAN]
    assert expected_best(half, 1, higher_is_better=True, charge=0.1) == pytest.approx(0.5)
    assert expected_best(half, 2, higher_is_better=True, charge=0.1) == pytest.approx(0.9)
    assert expected_best([NAN], 1, higher_is_better=False, charge=2.3) == 2.3
    with pytest.raises(ValueError, match="between 1 and the 2 stored trials, got 3"):
        expected_best(half, 3, higher_is_better=True)


def test_the_winner_of_a_tuning_is_biased_upward() -> None:
    """Eight equal settings: the best of eight normal values stands 1.42 deviations too high."""
    rng = np.random.default_rng(0)
    biases = []
    for _ in range(4000):
        found = selection_bias(
            rng.normal(size=8).max(), rng.normal(size=1000), higher_is_better=True
        )
        assert found is not None
        assert found.bias is not None
        biases.append(found.bias)
    assert np.mean(biases) == pytest.approx(1.4236, abs=0.05)


def test_the_bias_is_signed_by_the_metric() -> None:
    lower = selection_bias(0.3, [0.4, 0.5], higher_is_better=False)
    assert lower is not None
    assert lower.bias == pytest.approx(0.15 / np.std([0.4, 0.5], ddof=1))
    assert selection_bias(0.3, [0.4], higher_is_better=False) is None
    assert selection_bias(NAN, [0.4, 0.5], higher_is_better=False) is None
    flat = selection_bias(0.3, [0.4, 0.4], higher_is_better=False)
    assert flat is not None
    assert flat.bias is None


def test_summaries_of_a_study(tmp_path: Path) -> None:
    tuned = {"Adam": (0.5, 0.7, 0.8, NAN), "SGD": (0.2, 0.3, NAN, NAN)}
    learning = algorithm("SGD", sampler="tpe")
    folder = study(
        tmp_path,
        {"Adam": ADAM, "SGD": SGD},
        tuning_values=tuned,
        algorithms=[algorithm("Adam"), learning],
    )
    adam, sgd = tuning_summaries(read_study(folder))
    assert (adam.algorithm, adam.metric, adam.budget, adam.failed) == ("Adam", "valid_loss", 4, 1)
    # Losses 0.5, 0.3, 0.2 and one failure, charged with SGD's worst, 0.8.
    assert adam.charge == pytest.approx(0.8)
    assert adam.expected is not None
    assert adam.expected[0] == pytest.approx((0.5 + 0.3 + 0.2 + 0.8) / 4)
    assert adam.expected[3] == pytest.approx(0.2)
    assert adam.resampled
    assert not sgd.resampled
    assert sgd.expected == pytest.approx((0.8, 0.7, 0.7, 0.7))
    assert adam.edges == ()
    assert adam.selection is not None
    assert adam.selection.tuned == pytest.approx(0.2)
    assert adam.selection.fresh == pytest.approx(1 - np.mean(ADAM))
    assert adam.selection.bias == pytest.approx((1 - np.mean(ADAM) - 0.2) / np.std(ADAM, ddof=1))
    json.dumps([adam.to_dict(), sgd.to_dict()], allow_nan=False)


def test_pruned_trials_are_counted_apart_and_keep_their_order(tmp_path: Path) -> None:
    tuned = {"Adam": (0.5, 0.8, 0.7, NAN), "SGD": (0.2, 0.3, 0.4, 0.5)}
    pruning = {**algorithm("Adam"), "pruner": {"name": "MedianPruner"}}
    folder = study(
        tmp_path,
        {"Adam": ADAM, "SGD": SGD},
        tuning_values=tuned,
        algorithms=[pruning, algorithm("SGD")],
    )
    tables = read_study(folder)
    rows = tables.runs
    at = (rows["algorithm"] == "Adam") & (rows["role"] == "tuning") & (rows["index"] == 2)
    rows.loc[at, "status"], rows.loc[at, "complete"] = "pruned", False
    adam, sgd = tuning_summaries(tables)
    assert (adam.budget, adam.failed, adam.pruned) == (4, 1, 1)
    assert not adam.resampled
    assert adam.expected == pytest.approx((0.5, 0.2, 0.2, 0.2))
    assert sgd.resampled


def test_a_winner_at_the_edge_is_flagged_with_the_space_to_try(tmp_path: Path) -> None:
    space = {"lr": {"low": 1e-5, "high": 1e-3, "log": True}}
    adam = algorithm("Adam", space=space)
    folder = study(tmp_path, {"Adam": ADAM, "SGD": SGD}, algorithms=[adam, algorithm("SGD")])
    first, second = tuning_summaries(read_study(folder))
    (edge,) = first.edges
    assert (edge.name, edge.value, edge.side) == ("lr", 1e-3, "high")
    assert edge.suggestion["high"] > 1e-3
    assert edge.suggestion["low"] < 1e-3
    assert second.edges == ()
