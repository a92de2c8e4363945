"""The sign-flip test of paired differences, and the interval that it gives.

If two algorithms perform alike, exchanging them within a seed changes nothing: each paired
difference is as likely to have one sign as the other, whatever its size. The test compares the sum
of the differences with its values under all choices of signs, so that its level holds for *every*
symmetric distribution of differences, at any number of seeds (Fisher 1935). Flipping the signs of a
subset raises the sum exactly where the mean of the subset is negative, so that the means of all
subsets order the values which the test does not reject (Hartigan 1969).

Index legend: n differences; B choices of signs besides the one observed, all 2^n - 1 of them up to
:data:`EXACT_SEEDS` differences, and a random sample beyond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["equivalence_p_value", "fewest_seeds", "flip_interval", "flip_p_value"]

EXACT_SEEDS = 16
"""Up to this many differences all 2^n choices of signs are compared."""

SAMPLED = 2**16 - 1
"""Choices of signs compared beyond; the level holds for a sample too, as the observed one is in."""

ROUNDING = 1e-12
"""Means of subsets this small beside the largest difference are rounding errors of zero."""

Array = NDArray[np.float64]


def flip_p_value(differences: Sequence[float]) -> float:
    """Two-sided p-value: twice the smaller share of choices of signs with as extreme a sum.

    The smallest possible value is ``2 / 2**n``, where all differences have one sign.

    Args:
        differences: [n], finite.
    """
    means = _subset_means(tuple(differences))
    smaller = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (1 + smaller) / (1 + len(means)))


def equivalence_p_value(differences: Sequence[float], margin: float) -> float:
    """P-value of the hypothesis that the centre is the margin or more away from zero.

    The larger of two one-sided sign-flip tests, against ``-margin`` and against ``margin``; at the
    smallest ``1 / 2**n``.

    Args:
        differences: [n], finite.
        margin: positive.
    """
    means = _subset_means(tuple(differences))
    beyond = max(int((means <= -margin).sum()), int((means >= margin).sum()))
    return (1 + beyond) / (1 + len(means))


def flip_interval(differences: Sequence[float], level: float) -> tuple[float, float] | None:
    """All centres of the differences that the two-sided test at ``level`` does not reject.

    It covers the centre of every symmetric distribution with probability ``1 - level`` at least.

    Args:
        differences: [n], finite.
        level: of the test.

    Returns:
        The interval, or None where n is too small for the level, so that no centre is rejected.
    """
    means = _subset_means(tuple(differences))
    k = math.floor(level / 2 * (1 + len(means)) * (1 + 1e-12))
    if k < 1:
        return None
    ordered = np.partition(means, (k - 1, len(means) - k))
    return float(ordered[k - 1]), float(ordered[len(means) - k])


def fewest_seeds(level: float) -> int:
    """Fewest differences with which any test that holds ``level`` can find a difference.

    With fewer, differences of one sign and equal size are more probable than the level although
    neither algorithm is better.
    """
    n = 2
    while 2.0 / 2**n > level * (1 + 1e-12):
        n += 1
    return n


@lru_cache(maxsize=8)
def _subset_means(differences: tuple[float, ...]) -> Array:
    """[B] means of the non-empty subsets of the differences, in no order."""
    d = np.asarray(differences, dtype=np.float64)
    if len(d) <= EXACT_SEEDS:
        sums, sizes = np.zeros(1), np.zeros(1)
        for value in d:  # each difference is in a subset or not
            sums = np.concatenate([sums, sums + value])
            sizes = np.concatenate([sizes, sizes + 1])
        means = sums[1:] / sizes[1:]
    else:
        means = _sampled_means(d)
    means[np.abs(means) <= ROUNDING * float(np.abs(d).max(initial=0.0))] = 0.0
    return means


def _sampled_means(d: Array) -> Array:
    """[B] means of random subsets: the same subsets for all data of one size."""
    parts = []
    for chosen in _subsets(len(d)):
        sizes = chosen.sum(axis=1)
        parts.append((chosen @ d)[sizes > 0] / sizes[sizes > 0])
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _subsets(n: int) -> tuple[NDArray[np.bool_], ...]:
    """Random subsets of n differences, in blocks: [B] rows in all."""
    rng = np.random.default_rng(n)
    sizes = [min(4096, SAMPLED - begin) for begin in range(0, SAMPLED, 4096)]
    return tuple(rng.random((size, n)) < 0.5 for size in sizes)
