"""Speed to a baseline's loss: values in closed form, censoring, paired resamples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from optiscope.stats.speed import Race, mean_speed, means, share_needed, speed

SHARES = (1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 1.0)


def race(losses: list[list[float]], goals: list[float], **changes: object) -> Race:
    """A race in which a step takes the optimizer twice the baseline's second."""
    seconds = tuple(tuple(2.0 * share for share in SHARES) for _ in goals)
    values = {
        "problem": "p",
        "algorithm": "fast",
        "baseline": "slow",
        "shares": SHARES,
        "losses": tuple(map(tuple, losses)),
        "seconds": seconds,
        "goals": tuple(goals),
        "goal_seconds": (1.0,) * len(goals),
    }
    return Race(**{**values, **changes})  # type: ignore[arg-type]


def logarithmic(level: float) -> list[float]:
    """Losses level - log(share): at most x from share exp(level - x) on."""
    return [level - math.log(share) for share in SHARES]


@pytest.mark.parametrize("share", [0.13, 1 / 6, 0.2, 0.4, 0.77, 1.0])
def test_a_loss_linear_in_the_logarithm_is_interpolated_exactly(share: float) -> None:
    found = share_needed(SHARES, logarithmic(0.0), -math.log(share))
    assert found.value == pytest.approx(share, rel=1e-12)
    assert found.bound == ""


def test_between_two_horizons_by_hand() -> None:
    """Half of the way from 2 to 1 is half of the way from log 1/4 to log 1: at 1/2."""
    assert share_needed([0.25, 1.0], [2.0, 1.0], 1.5).value == pytest.approx(0.5)


def test_what_is_not_known_is_a_bound() -> None:
    never = share_needed(SHARES, [2.0] * 6, 1.0)
    assert (never.value, never.bound) == (1.0, "at most")
    at_once = share_needed(SHARES, [0.5] * 6, 1.0)
    assert (at_once.value, at_once.bound) == (1 / 8, "at least")
    exactly = share_needed(SHARES, [1.0, 0.5, 0.5, 0.5, 0.5, 0.5], 1.0)
    assert (exactly.value, exactly.bound) == (1 / 8, "")


def test_a_longer_horizon_that_ends_worse_changes_nothing() -> None:
    """Who overfits when told too long a horizon has reached the loss all the same."""
    usual = share_needed(SHARES, [3.0, 2.0, 1.0, 0.9, 0.8, 0.7], 1.5)
    overfits = share_needed(SHARES, [3.0, 2.0, 1.0, 1.2, 5.0, 9.0], 1.5)
    assert usual == overfits
    assert usual.value == pytest.approx(math.sqrt(1 / 6 * 1 / 4))


def test_a_failed_run_reaches_nothing() -> None:
    nan = math.nan
    found = share_needed(SHARES, [nan, 1.0, nan, 0.5, nan, 0.1], 0.7)
    assert (found.value, found.bound) == (1 / 3, "")  # nothing to interpolate from
    assert share_needed(SHARES, [nan] * 6, 0.7).bound == "at most"


@pytest.mark.parametrize(
    ("shares", "losses", "goal", "said"),
    [
        ([], [], 1.0, "one or more horizons"),
        ([0.5, 1.0], [1.0], 1.0, "loss for each"),
        ([1.0, 0.5], [1.0, 1.0], 1.0, "ascending"),
        ([0.0, 0.5], [1.0, 1.0], 1.0, "positive"),
        ([0.5, 1.0], [1.0, 1.0], math.nan, "finite"),
    ],
)
def test_refusals(shares: list[float], losses: list[float], goal: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        share_needed(shares, losses, goal)


def test_steps_and_seconds() -> None:
    """Needing a quarter of the steps, each of twice the seconds, is half of the seconds."""
    found = speed(race([logarithmic(0.0)] * 2, [math.log(4)] * 2))
    assert found.steps == pytest.approx(4.0)
    assert found.seconds == pytest.approx(2.0)
    assert found.share == pytest.approx(0.25)
    assert found.steps_interval == pytest.approx((4.0, 4.0))  # no seed differs
    assert found.seconds_interval == pytest.approx((2.0, 2.0))


def test_differences_that_both_share_do_not_widen_the_interval() -> None:
    """Seeds are resampled in pairs: what is common to both sides of a seed drops out."""
    levels = [0.0, 5.0, -3.0]
    paired = speed(race([logarithmic(x) for x in levels], [x + math.log(4) for x in levels]))
    assert paired.steps_interval == pytest.approx((4.0, 4.0))


def test_the_interval_is_that_of_every_resample() -> None:
    """With losses linear in log share, log speed is the mean of the seeds' own log speeds."""
    own = np.log([2.0, 4.0, 6.0])
    found = speed(race([logarithmic(0.0)] * 3, list(own)))
    resampled = [np.mean(chosen) for chosen in itertools.product(own, repeat=3)]
    assert len(found.logarithms) == 27
    assert sorted(found.logarithms[:, 0]) == pytest.approx(sorted(resampled))
    assert np.log(found.steps_interval) == pytest.approx(np.quantile(resampled, [0.025, 0.975]))
    assert np.log(found.steps) == pytest.approx(own.mean())


def test_many_seeds_are_drawn_and_the_draw_is_fixed() -> None:
    rng = np.random.default_rng(1)
    goals = list(np.log(4) + 0.1 * rng.standard_normal(8))
    one, two = (speed(race([logarithmic(0.0)] * 8, goals)) for _ in range(2))
    assert one.steps_interval == two.steps_interval
    half = (np.log(one.steps_interval[1]) - np.log(one.steps_interval[0])) / 2
    error = np.std(goals) / np.sqrt(8)  # of a mean, as a resample sees it
    assert half == pytest.approx(1.96 * error, rel=0.1)


def test_a_horizon_where_one_seed_failed_reaches_nothing() -> None:
    losses = [logarithmic(0.0), logarithmic(0.0)]
    losses[1][2] = math.nan  # at a quarter, where both would be there
    found = speed(race(losses, [math.log(4)] * 2))
    assert found.steps == pytest.approx(3.0)


def test_geometric_mean_and_smallest() -> None:
    eight = speed(race([logarithmic(0.0)], [math.log(8)], problem="a"))
    two = speed(race([logarithmic(0.0)], [math.log(2)], problem="b"))
    mean = mean_speed([eight, two])
    assert mean.steps == pytest.approx(4.0)
    assert mean.seconds == pytest.approx(2.0)
    assert mean.smallest == ("b", pytest.approx(2.0))
    assert mean.steps_interval == pytest.approx((4.0, 4.0))
    assert (mean.problems, mean.bound) == (2, "")
    assert means([eight, two]) == {"fast": mean}


def test_bounds_go_on_to_the_mean() -> None:
    fast = speed(race([[0.0] * 6], [1.0]))
    slow = speed(race([[2.0] * 6], [1.0]))
    exact = speed(race([logarithmic(0.0)], [math.log(2)]))
    assert (fast.bound, slow.bound) == ("at least", "at most")
    assert mean_speed([fast, exact]).bound == "at least"
    assert mean_speed([slow, exact]).bound == "at most"
    assert mean_speed([slow, fast]).bound == "bounds of both kinds"


def test_intervals_say_which_of_their_ends_are_bounds() -> None:
    fast, slow = speed(race([[0.0] * 6], [1.0])), speed(race([[2.0] * 6], [1.0]))
    exact = speed(race([logarithmic(0.0)], [math.log(2)]))
    assert (fast.ends, slow.ends) == (("", "at least"), ("at most", ""))
    assert exact.ends == ("", "")
    assert mean_speed([fast, exact]).ends == ("", "at least")
    assert mean_speed([slow, exact]).ends == ("at most", "")
    both = mean_speed([slow, fast, exact])
    assert both.ends == ("at most", "at least")
    assert (both.upper_bounds, both.lower_bounds) == (1, 1)
    assert (both.smallest[1], both.smallest_bound) == (1.0, "at most")
    seeds = speed(race([logarithmic(0.0)] * 3, list(np.log([2.0, 4.0, 40.0]))))
    assert (seeds.bound, seeds.ends) == ("", ("", "at least")), "one seed is past an eighth"


def test_shapes_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match="2 seeds at 6 horizons"):
        speed(race([logarithmic(0.0)], [1.0, 2.0]))
    with pytest.raises(ValueError, match="one algorithm"):
        mean_speed([])
