"""How many pairs of seeds would decide: power of the tests used for claims."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

__all__ = [
    "equivalence_power",
    "first_deciding_flip_test",
    "first_deciding_sign_test",
    "first_deciding_t_test",
    "sign_test_power",
    "t_test_power",
]

MOST_SEEDS = 1000
"""Beyond this many seeds an estimate is of no use: nobody will run them."""

POWER = 0.8
"""Chance of a decision that the estimates ask for."""

Counts = NDArray[np.int64]
Array = NDArray[np.float64]


def t_test_power(effect: float, pairs: Counts, level: float) -> Array:
    """Probability that the two-sided paired t test finds an effect, by the noncentral t.

    Args:
        effect: true mean difference in standard deviations of the paired differences.
        pairs: [K] numbers of pairs, each at least 2.
        level: of the test.

    Returns:
        [K] probabilities, counting only findings of the right sign.
    """
    n = np.asarray(pairs, dtype=np.int64)
    critical = special.stdtrit(n - 1, 1 - level / 2)
    return _noncentral_t_above(critical, n, abs(effect))


def equivalence_power(effect: float, margin: float, pairs: Counts, level: float) -> Array:
    """Probability that two one-sided t tests show equivalence, from below (Bonferroni).

    Args:
        effect: true mean difference, in standard deviations of the paired differences.
        margin: of equivalence, in the same unit.
        pairs: [K] numbers of pairs, each at least 2.
        level: of each one-sided test.

    Returns:
        [K] lower bounds, exact in the limit of many pairs.
    """
    n = np.asarray(pairs, dtype=np.int64)
    critical = special.stdtrit(n - 1, 1 - level)
    above = _noncentral_t_above(critical, n, margin + effect)
    below = _noncentral_t_above(critical, n, margin - effect)
    return np.asarray(np.clip(above + below - 1, 0, 1), dtype=np.float64)


def sign_test_power(win: float, loss: float, pairs: int, level: float) -> float:
    """Probability that the two-sided sign test finds the more frequent winner.

    Args:
        win: probability that a pair is won.
        loss: probability that it is lost; the rest are ties, which the test leaves out.
        pairs: number of pairs.
        level: of the test.
    """
    win, loss = max(win, loss), min(win, loss)
    decided = win + loss
    if decided == 0:
        return 0.0
    k = np.arange(pairs + 1)  # pairs that are no ties
    # Smallest number of wins among k at which twice the binomial tail is at most the level.
    critical = stats.binom.isf(level / 2, k, 0.5) + 1
    found = np.where(critical <= k, stats.binom.sf(critical - 1, k, win / decided), 0.0)
    return float(stats.binom.pmf(k, pairs, decided) @ found)


def first_deciding_t_test(
    effect: float, margin: float | None, level: float, *, above: int
) -> int | None:
    """Fewest pairs, more than ``above``, that decide with probability 0.8; None beyond 1000.

    Decided means: the difference is found, or (with a margin) equivalence is.
    """
    numbers = range(above + 1, MOST_SEEDS + 1)

    def enough(n: int) -> bool:
        at = np.array([n])
        if t_test_power(effect, at, level)[0] >= POWER:
            return True
        return (
            margin is not None
            and abs(effect) < margin
            and bool(equivalence_power(effect, margin, at, level)[0] >= POWER)
        )

    # Both powers grow with n, so that the first number that is enough can be found by halving.
    position = bisect_left(numbers, True, key=enough)
    return numbers[position] if position < len(numbers) else None


def flip_test_power(effect: float, pairs: int, level: float) -> float:
    """Probability that the sign-flip test finds an effect, for normal differences; approximate.

    With few pairs it decides only where (nearly) all differences have one sign, with many like the
    t test: the probability of j or fewer differences of the other sign, j being as many as the
    level allows, but no more than the t test's power.

    Args:
        effect: true mean difference in standard deviations of the paired differences.
        pairs: number of pairs.
        level: of the test.
    """
    allowed = level / 2 * 2.0**pairs  # choices of signs that may have as extreme a sum
    if allowed < 1:
        return 0.0
    t_power = float(t_test_power(effect, np.array([pairs]), level)[0])
    if allowed >= 2 * pairs:
        return t_power
    others = 0 if allowed < 2 else 1
    same_sign = float(stats.binom.cdf(others, pairs, stats.norm.sf(abs(effect))))
    return min(t_power, same_sign)


def first_deciding_flip_test(
    effect: float, margin: float | None, level: float, *, above: int
) -> int | None:
    """As :func:`first_deciding_t_test`, for the sign-flip test."""
    found = first_deciding_t_test(effect, margin, level, above=above)
    if found is None:
        return None
    inside = margin is not None and abs(effect) < margin
    for n in range(found, MOST_SEEDS + 1):
        if flip_test_power(effect, n, level) >= POWER:
            return n
        equivalent = (
            inside
            and margin is not None
            and level * 2.0**n >= 1
            and equivalence_power(effect, margin, np.array([n]), level)[0] >= POWER
        )
        if equivalent:
            return n
    return None


def first_deciding_sign_test(win: float, loss: float, level: float, *, above: int) -> int | None:
    """Fewest pairs, more than ``above``, whose sign test decides with probability 0.8.

    None where a win is as likely as a loss, or beyond 1000 pairs.
    """
    if win == loss:
        return None
    low, high = above, above + 1
    while sign_test_power(win, loss, high, level) < POWER:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    # The power of an exact test is not monotone in n: take the first in the doubled range.
    found = next(
        n for n in range(low + 1, high + 1) if sign_test_power(win, loss, n, level) >= POWER
    )
    return found if found <= MOST_SEEDS else None


def _noncentral_t_above(critical: Array, n: Counts, effect: float) -> Array:
    """P(T > critical), noncentral t with n - 1 degrees and noncentrality effect * sqrt(n).

    SciPy's series returns NaN at some large noncentralities. There the normal approximation of
    Abramowitz and Stegun (26.7.10) stands in: a NaN would misdirect the search by halving.
    """
    shift = effect * np.sqrt(n)
    below = special.nctdtr(n - 1, shift, critical)
    freedom = n - 1
    z = (critical * (1 - 1 / (4 * freedom)) - shift) / np.sqrt(1 + critical**2 / (2 * freedom))
    return np.asarray(1 - np.where(np.isnan(below), special.ndtr(z), below), dtype=np.float64)
