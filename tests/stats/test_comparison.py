"""Paired comparisons against SciPy, by hand, and at the edges."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from optiscope.stats.comparison import (
    Comparison,
    ComparisonError,
    Verdict,
    decide,
    paired_comparison,
)
from optiscope.stats.many_comparisons import correct_for_many, step_down_levels

NAN = math.nan
A = [0.910, 0.905, 0.921, 0.899, 0.915]
B = [0.893, 0.899, 0.901, 0.890, 0.904]


def by_t(a: Sequence[float], b: Sequence[float], **arguments: Any) -> Comparison:
    return paired_comparison(a, b, assumption="normal", **arguments)


def test_where_differences_are_assumed_normal_it_is_scipys_paired_t_test() -> None:
    found = by_t(A, B, higher_is_better=True)
    assert found.assumes_normal
    expected = stats.ttest_rel(A, B)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-12)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)
    assert found.difference == pytest.approx(np.mean(A) - np.mean(B))
    assert found.test == "scipy.stats.ttest_rel"
    assert found.differences == pytest.approx(np.subtract(A, B))
    assert found.rank_p_value == pytest.approx(stats.wilcoxon(np.subtract(A, B)).pvalue)
    assert (found.wins, found.losses, found.pairs) == (5, 0, 5)
    assert found.verdict is Verdict.BETTER


def test_direction_follows_the_metric() -> None:
    assert by_t(A, B, higher_is_better=False).verdict is Verdict.WORSE
    assert by_t(B, A, higher_is_better=False).verdict is Verdict.BETTER
    one, other = [0.9 + 0.01 * k for k in range(8)], [0.8 + 0.011 * k for k in range(8)]
    assert paired_comparison(one, other, higher_is_better=False).verdict is Verdict.WORSE
    assert paired_comparison(one, other, higher_is_better=True).verdict is Verdict.BETTER


def test_equivalence_is_two_one_sided_t_tests() -> None:
    found = by_t(A, B, margin=0.03, higher_is_better=True)
    d = np.subtract(A, B)
    one = stats.ttest_1samp(d, 0.03, alternative="less").pvalue
    other = stats.ttest_1samp(d, -0.03, alternative="greater").pvalue
    assert found.equivalence_p_value == pytest.approx(max(one, other), rel=1e-9)
    # Shown to exist, and shown to be of no importance: the declared margin decides.
    assert found.p_value < 0.05
    assert found.verdict is Verdict.EQUIVALENT
    assert by_t(A, B, margin=0.013, higher_is_better=True).verdict is Verdict.BETTER


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(*[st.floats(-1, 1, width=32)] * 2), min_size=2, max_size=8))
def test_mirrored_is_the_comparison_the_other_way_round(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    there = paired_comparison(a, b, margin=0.1, higher_is_better=True)
    back = paired_comparison(b, a, margin=0.1, higher_is_better=True)
    assert there.mirrored.verdict is back.verdict
    assert there.mirrored.wins == back.wins
    assert there.p_value == pytest.approx(back.p_value, abs=1e-9)
    assert there.mirrored.difference == pytest.approx(back.difference)
    json.dumps(there.to_dict(), allow_nan=False)


def test_a_diverged_run_is_the_worst_outcome() -> None:
    b = [*B[:-1], NAN]
    found = paired_comparison(A, b, margin=10.0, higher_is_better=True)
    assert (found.wins, found.losses, found.diverged_a, found.diverged_b) == (5, 0, 0, 1)
    assert (found.difference, found.interval, found.mean_b) == (None, None, None)
    assert found.mean_a == pytest.approx(np.mean(A))
    assert found.p_value == pytest.approx(2 / 32)
    assert found.test == "scipy.stats.binomtest"
    assert found.equivalence_p_value == 1.0  # a run that fails is not equal to one that does not
    assert found.verdict is Verdict.UNDECIDED
    assert found.seeds_to_decide == 6


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("higher", [True, False])
def test_every_sort_of_failure_loses(bad: float, higher: bool) -> None:
    found = paired_comparison([1.0] * 6 + [bad], [bad] * 7, higher_is_better=higher)
    assert found.differences == (None,) * 7
    assert found.verdict is Verdict.BETTER
    assert found.p_value == pytest.approx(2 / 64)


def test_both_diverged_is_a_tie() -> None:
    found = paired_comparison([NAN, 1.0, 1.0], [NAN, 0.5, 0.5], higher_is_better=True)
    assert (found.wins, found.losses) == (2, 0)
    always = paired_comparison([NAN] * 3, [NAN] * 3, margin=1.0, higher_is_better=True)
    assert (always.p_value, always.verdict) == (1.0, Verdict.UNDECIDED)
    assert always.seeds_to_decide is None


def test_equal_differences_have_no_spread_to_trust() -> None:
    a = [0.3, 0.4, 0.5, 0.6, 0.7]
    shifted = paired_comparison([x + 0.1 for x in a], a, margin=0.2, higher_is_better=True)
    assert (shifted.deviation, shifted.interval) == (0.0, None)
    assert shifted.p_value == pytest.approx(2 / 32)
    assert shifted.equivalence_p_value == pytest.approx(1 / 32)
    same = paired_comparison(a, a, margin=0.01, higher_is_better=True)
    assert same.verdict is Verdict.EQUIVALENT
    two = paired_comparison(a[:2], a[:2], margin=0.01, higher_is_better=True)
    assert two.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"a": [1.0], "b": [2.0]}, "at least 2 pairs of seeds, got 1"),
        ({"a": [], "b": []}, "at least 2 pairs of seeds, got 0"),
        ({"a": [1.0, 2.0], "b": [2.0]}, "one value per seed for both"),
        ({"a": A, "b": B, "level": 1.0}, "level must lie between 0 and 1, got 1.0"),
        ({"a": A, "b": B, "assumption": "none"}, "must be 'symmetric' or 'normal', got 'none'"),
        ({"a": A, "b": B, "margin": -0.1}, "margin must be positive, got -0.1"),
        ({"a": A, "b": B, "margin": NAN}, "margin must be positive, got nan"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ComparisonError, match=message) as error:
        paired_comparison(**arguments, higher_is_better=True)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_step_down_levels_are_holms() -> None:
    p = [0.001, 0.02, 0.03, 0.2]
    levels = step_down_levels([[v] for v in p], 0.05)
    assert levels == pytest.approx([0.05 / 4, 0.05 / 3, 0.05 / 3, 0.05 / 3])
    assert [v <= x for v, x in zip(p, levels, strict=True)] == [True, False, False, False]
    assert step_down_levels([[0.01], [0.04], [0.03]], 0.05) == pytest.approx(
        [0.05 / 3, 0.025, 0.025]
    )
    assert step_down_levels([[0.02]], 0.05) == [0.05]
    assert step_down_levels([], 0.05) == []


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_step_down_agrees_with_adjusted_p_values(p: list[float]) -> None:
    m, order = len(p), np.argsort(p)
    scaled = np.array(p)[order] * (m - np.arange(m))
    adjusted = np.empty(m)
    adjusted[order] = np.maximum.accumulate(scaled)
    decided = [v <= x for v, x in zip(p, step_down_levels([[v] for v in p], 0.05), strict=True)]
    clear = np.abs(adjusted - 0.05) > 1e-9
    assert np.array_equal(np.array(decided)[clear], (adjusted <= 0.05)[clear])


def test_with_a_margin_a_comparison_counts_until_both_its_hypotheses_fall() -> None:
    # The first is shown both to exist and to be small; only then are two comparisons left.
    levels = step_down_levels([[0.001, 0.0001], [0.02, 0.9], [0.6, 0.004]], 0.05)
    assert levels == pytest.approx([0.05 / 3, 0.025, 0.025])
    # The first is only shown to exist: its other hypothesis may be true, and still counts.
    levels = step_down_levels([[0.001, 0.9], [0.02, 0.9], [0.6, 0.9]], 0.05)
    assert levels == pytest.approx([0.05 / 3] * 3)


def test_corrected_intervals_exclude_zero_exactly_where_a_difference_is_found() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        shift = rng.choice([0.0, 1.0, 2.0], size=5)
        family = [
            paired_comparison(rng.normal(s, 1, 8), rng.normal(0, 1, 8), higher_is_better=True)
            for s in shift
        ]
        for before, after in zip(family, correct_for_many(family, 0.05), strict=True):
            assert after.interval is not None
            assert before.interval is not None
            low, high = after.interval
            assert (low > 0 or high < 0) == (after.verdict in (Verdict.BETTER, Verdict.WORSE))
            assert low <= before.interval[0] <= before.interval[1] <= high


def test_decide_at_another_level_keeps_the_measurements() -> None:
    found = by_t(A, B, higher_is_better=True)
    strict = decide(found, 0.001)
    assert strict.p_value == found.p_value
    assert strict.verdict is Verdict.UNDECIDED
    assert decide(strict, 0.05) == found
