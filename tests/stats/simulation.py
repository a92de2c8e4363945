"""Many simulated comparisons at once, by the same arithmetic as the shipped functions.

Index legend: R repetitions; n pairs. ``test_honesty.py`` checks that the two agree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from optiscope.stats.sequential import SequentialPlan

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

NOISES = ("normal", "t3")


def noise(name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Paired differences of mean 0 and standard deviation 1."""
    if name == "normal":
        return rng.normal(size=shape)
    return rng.standard_t(3, size=shape) / np.sqrt(3)


def p_values(d: Array) -> Array:
    """[R] p-values for differences [R, n]: t test, or the sign test where one is not finite."""
    n = d.shape[1]
    with np.errstate(invalid="ignore"):
        p = np.array(stats.ttest_1samp(d, 0, axis=1).pvalue)
    failed = ~np.isfinite(d).all(axis=1)
    above, below = (d > 0).sum(axis=1), (d < 0).sum(axis=1)
    sign = np.minimum(1, 2 * stats.binom.cdf(np.minimum(above, below), above + below, 0.5))
    assert n > 1
    return np.where(failed, sign, p)


def equivalence_p_values(d: Array, margin: float) -> Array:
    """[R] p-values of two one-sided t tests; 1 where a difference is not finite."""
    n = d.shape[1]
    with np.errstate(invalid="ignore"):
        t = (margin - np.abs(d.mean(axis=1))) / (d.std(axis=1, ddof=1) / np.sqrt(n))
        return np.where(np.isfinite(t), stats.t.sf(t, n - 1), 1.0)


def covers(d: Array, truth: float, level: float) -> Flags:
    """[R] whether the t interval of differences [R, n] holds the true mean."""
    n = d.shape[1]
    half = stats.t.ppf(1 - level / 2, n - 1) * d.std(axis=1, ddof=1) / np.sqrt(n)
    return np.abs(d.mean(axis=1) - truth) <= half


def first_stage(d: Array, plan: SequentialPlan) -> NDArray[np.int64]:
    """[R] index of the stage that decides, or of the last one; and K where none does."""
    stage = np.full(len(d), len(plan.stages))
    for k in reversed(range(len(plan.stages))):
        stage[p_values(d[:, : plan.stages[k]]) <= plan.shares[k]] = k
    return stage
