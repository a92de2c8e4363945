"""The rate guard, pure: what lowers a rate, what raises it, and what it leaves alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from optiscope.optim.preconditioner.rate_guard import RateGuard, bounded_rate, step_probe_due


def test_a_rate_is_lowered_to_the_inverse_of_a_curvature_that_is_too_large() -> None:
    guard = RateGuard(rate=0.5)
    assert guard.shortened(2.4) is guard
    assert guard.shortened(2.6) == replace(guard, rate=1 / 2.6)
    assert guard.shortened(8.1) == replace(guard, rate=1 / 8.1, troubled=True)
    assert guard.shortened(7.9, limit=4.0) is guard


@pytest.mark.parametrize("curvature", [-5.0, 0.0, math.nan, math.inf])
def test_curvatures_that_say_nothing_change_nothing(curvature: float) -> None:
    guard = RateGuard(rate=0.5)
    assert guard.shortened(curvature) is guard
    assert RateGuard().shortened(100.0) == RateGuard()


def test_the_largest_next_rate_is_twice_the_last_and_four_times_after_trouble() -> None:
    assert RateGuard().most == math.inf
    assert RateGuard(rate=0.5).most == 1.0
    assert RateGuard(rate=0.5, provisional=True).most == 2.0


def test_growth_makes_steps_suspect_and_much_growth_lowers_the_rate() -> None:
    guard, lowered = RateGuard(rate=0.9).watched(1.0, may_lower=True)
    assert (guard.level, guard.recent, lowered) == (1.0, 1.0, False)
    suspect, lowered = guard.watched(6.0, may_lower=True)  # 3.5 on average
    assert suspect.suspect
    assert not lowered
    assert suspect.level == pytest.approx(1.1)  # growth from look to look is no news
    grown, lowered = guard.watched(18.0, may_lower=True)
    assert lowered
    assert grown.rate == pytest.approx(0.3)
    assert grown.caution == pytest.approx(1 / 3)
    assert grown.troubled
    assert guard.watched(18.0, may_lower=False)[0].rate == 0.9


def test_rates_are_not_lowered_without_end_nor_by_zero_gradients() -> None:
    guard, times = RateGuard(rate=1.0, level=1.0, recent=1.0), 0
    for _ in range(100):
        guard, lowered = replace(guard, level=1.0).watched(1e6, may_lower=True)
        times += lowered
    assert times == 2
    assert guard.watched(0.0, may_lower=True) == (guard, False)


def test_an_estimation_forgets_trouble_and_wins_back_trust() -> None:
    guard = RateGuard(1.0, 5.0, 2.0, caution=0.5, suspect=True, troubled=True)
    after = guard.concluded(provisional=True)
    assert after == RateGuard(1.0, 5.0, 0.0, caution=0.625, provisional=True)
    for _ in range(9):
        after = after.concluded(provisional=False)
    assert after.caution == 1.0


def test_probes_and_bounds() -> None:
    assert [age for age in range(100) if step_probe_due(age)] == [5, 10, 20, 40, 80]
    assert bounded_rate(3.0, 2.0, weights=1.0, gradient=0.1) == 2.0
    assert bounded_rate(3.0, math.inf, weights=1.0, gradient=4.0) == 0.5
    assert bounded_rate(None, 2.0, 1.0, 1.0) is None
    assert bounded_rate(-1.0, 2.0, 1.0, 1.0) is None
