"""Many simulated comparisons at once, by the same arithmetic as the shipped functions.

Index legend: R repetitions; n pairs. ``test_honesty.py`` checks that the two agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from optiscope.stats.sequential import SequentialPlan

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

NOISES = ("normal", "t3")
BLOCK = 2**22  # numbers at a time


def noise(name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Paired differences of mean 0 and standard deviation 1."""
    if name == "normal":
        return rng.normal(size=shape)
    return rng.standard_t(3, size=shape) / np.sqrt(3)


def _collapse(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(0, 0.01, shape) - 0.3 * (rng.random(shape) < 0.1)


def _two_optima(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(0, 0.05, shape) + (rng.random(shape) < 0.5)


def _independent(draw: Callable[..., Array]) -> Callable[..., Array]:
    return lambda rng, shape: draw(rng, shape) - draw(rng, shape)


SYMMETRIC: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    # Differences of two algorithms that perform alike: the cells of an attack on the t test.
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t3": lambda rng, shape: rng.standard_t(3, size=shape),
    "cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "exponential": _independent(lambda rng, shape: rng.exponential(size=shape)),
    "lognormal 1.5": _independent(lambda rng, shape: rng.lognormal(0, 1.5, shape)),
    "10 % of seeds collapse": _independent(_collapse),
    "accuracy of 360 samples": _independent(
        lambda rng, shape: rng.binomial(360, 0.97, shape) / 360
    ),
    "rho = 0.9": lambda rng, shape: np.sqrt(0.2) * rng.normal(size=shape),
    "sd 1 against 10": lambda rng, shape: rng.normal(size=shape) - 10 * rng.normal(size=shape),
    "two optima": _independent(_two_optima),
    "two points": lambda rng, shape: (
        rng.choice([-1.0, 1.0], shape) + rng.uniform(-0.05, 0.05, shape)
    ),
    "sizes grow": lambda rng, shape: rng.choice([-1.0, 1.0], shape) * 2.0 ** np.arange(shape[-1]),
}


def skewed(name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, float]:
    """Differences of mean 0 that are not symmetric, and their median."""
    if name == "exponential against its mean":
        return rng.exponential(size=shape) - 1, float(np.log(2) - 1)
    if name == "lognormal 1.5 against its mean":
        return rng.lognormal(0, 1.5, shape) - np.exp(1.125), float(1 - np.exp(1.125))
    spread = rng.normal(0, 0.002, shape)
    return spread + 0.03 - 0.3 * (rng.random(shape) < 0.1), 0.03  # a rare collapse


SKEWED = (
    "exponential against its mean", "lognormal 1.5 against its mean", "a rare collapse"
)  # fmt: skip


def p_values(d: Array) -> Array:
    """[R] p-values for differences [R, n]: sign flips, or the sign test where one is not finite."""
    n = d.shape[1]
    failed = ~np.isfinite(d).all(axis=1)
    p = np.ones(len(d))
    p[~failed] = 2 * np.minimum(*_one_sided(d[~failed]))
    above, below = (d > 0).sum(axis=1), (d < 0).sum(axis=1)
    sign = np.minimum(1, 2 * stats.binom.cdf(np.minimum(above, below), above + below, 0.5))
    assert n > 1
    return np.where(failed, sign, np.minimum(1, p))


def t_p_values(d: Array) -> Array:
    """[R] p-values of the paired t test."""
    return np.asarray(stats.ttest_1samp(d, 0, axis=1).pvalue)


def _one_sided(d: Array) -> tuple[Array, Array]:
    """[R] shares of choices of signs with a sum as high, and as low, as the one observed."""
    n = d.shape[1]
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    high, low = np.empty(len(d)), np.empty(len(d))
    step = max(1, BLOCK // len(signs))
    for begin in range(0, len(d), step):
        rows = d[begin : begin + step]
        sums, room = rows @ signs.T, 1e-12 * n * np.abs(rows).max(axis=1, keepdims=True)
        high[begin : begin + step] = (sums >= sums[:, :1] - room).mean(axis=1)
        low[begin : begin + step] = (sums <= sums[:, :1] + room).mean(axis=1)
    return high, low


def equivalence_p_values(d: Array, margin: float) -> Array:
    """[R] p-values of two one-sided sign-flip tests; 1 where a difference is not finite."""
    sound = np.isfinite(d).all(axis=1)
    p = np.ones(len(d))
    p[sound] = np.maximum(_one_sided(d[sound] + margin)[0], _one_sided(d[sound] - margin)[1])
    return p


def covers(d: Array, truth: float, level: float) -> Flags:
    """[R] whether the interval of differences [R, n] holds the centre."""
    return p_values(d - truth) > level


def first_stage(d: Array, plan: SequentialPlan) -> NDArray[np.int64]:
    """[R] index of the stage that decides, or of the last one; and K where none does."""
    stage = np.full(len(d), len(plan.stages))
    for k in reversed(range(len(plan.stages))):
        stage[p_values(d[:, : plan.stages[k]]) <= plan.shares[k]] = k
    return stage
