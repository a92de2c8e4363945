"""Result against tuning budget: the best of n trials, for every n up to the budget.

Source: Dodge et al. 2019, *Show Your Work*, here without replacement: the best of a random subset
of n of the B stored trials, by its exact distribution instead of by drawing subsets.

Index legend: B stored trials, entry n - 1 belongs to a budget of n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BestOfN", "best_of_n", "best_so_far"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BestOfN:
    """Distribution of the best of n trials, n = 1 .. B.

    Failed trials are charged: each takes one of the n draws and is worse than any number. So a
    quantile is infinite (the worst value) as long as that share of draws holds failures only.

    Attributes:
        expected: [B] mean over the draws that hold a trial that did not fail; NaN without any.
        median: [B].
        lower: [B] the 25 % quantile.
        upper: [B] the 75 % quantile.
        all_failed: [B] share of draws in which every trial failed.
    """

    expected: Array
    median: Array
    lower: Array
    upper: Array
    all_failed: Array


def best_of_n(values: Sequence[float], *, higher_is_better: bool) -> BestOfN:
    """The best of n of the given values, which come in any order; not finite means failed.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("best_of_n needs the value of at least one trial, got none")
    sign = -1.0 if higher_is_better else 1.0
    worst = math.inf * sign
    array = np.array([sign * v if math.isfinite(v) else math.inf for v in values])
    array.sort()
    total = len(array)
    finite = int(np.isfinite(array).sum())
    expected, all_failed = np.full(total, math.nan), np.zeros(total)
    quantiles = np.empty((3, total))
    for n in range(1, total + 1):
        # The best of n is entry i where the other n - 1 come from the total - 1 - i behind it.
        weights = np.array([math.comb(total - 1 - i, n - 1) for i in range(total)], dtype=object)
        shares = (weights / math.comb(total, n)).astype(float)
        all_failed[n - 1] = shares[finite:].sum()
        if finite:
            expected[n - 1] = sign * (shares[:finite] @ array[:finite]) / shares[:finite].sum()
        cumulative = np.cumsum(shares)
        at = np.searchsorted(cumulative, np.array([0.25, 0.5, 0.75]) - 1e-12)
        quantiles[:, n - 1] = array[np.minimum(at, total - 1)]
    quantiles = np.where(np.isfinite(quantiles), sign * quantiles, worst)
    lower, median, upper = quantiles[::-1] if higher_is_better else quantiles
    return BestOfN(expected, median, lower, upper, all_failed)


def best_so_far(values: Sequence[float], *, higher_is_better: bool) -> Array:
    """[B] best of the first n trials in their own order, for samplers that learn on the way.

    Infinite (the worst value) until the first trial that did not fail.
    """
    sign = -1.0 if higher_is_better else 1.0
    array = np.array([sign * v if math.isfinite(v) else math.inf for v in values])
    return sign * np.minimum.accumulate(array)
