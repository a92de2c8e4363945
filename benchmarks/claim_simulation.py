"""Error rates, coverage and power of the tests behind claims: the figures of docs/claims.md.

Run ``python benchmarks/claim_simulation.py``; it takes about a minute on one core.
Index legend: R repetitions; n pairs of seeds; differences are [R, n].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from optiscope.stats.power import t_test_power
from optiscope.stats.sequential import SequentialPlan, stages

Array = NDArray[np.float64]
REPETITIONS = 100_000
LEVEL = 0.05

NOISE: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    # Of mean 0; what differs is the tail, and in the last case the symmetry.
    "normal": lambda rng, shape: rng.normal(size=shape),
    "Student t, 3 degrees": lambda rng, shape: rng.standard_t(3, size=shape) / np.sqrt(3),
    "1 in 10 ten times wider": lambda rng, shape: (
        rng.normal(size=shape) * np.where(rng.random(shape) < 0.1, 10, 1) / np.sqrt(10.9)
    ),
    "skewed (exponential)": lambda rng, shape: rng.exponential(size=shape) - 1,
}


def t_test(d: Array) -> Array:
    """p-values [R] of the paired t test."""
    return np.asarray(stats.ttest_1samp(d, 0, axis=1).pvalue)


def wilcoxon(d: Array) -> Array:
    """p-values [R] of the exact signed-rank test."""
    return np.asarray(stats.wilcoxon(d, axis=1, method="exact").pvalue)


def sign_flip(d: Array) -> Array:
    """p-values [R] of the permutation test over all 2^n signs of the differences."""
    signs = np.array(list(itertools.product((1, -1), repeat=d.shape[1])))
    flipped = np.abs(d @ signs.T)
    return np.asarray((flipped >= flipped[:, :1] * (1 - 1e-12)).mean(axis=1))


def sign(d: Array) -> Array:
    """p-values [R] of the exact sign test."""
    n = d.shape[1]
    fewer = np.minimum((d > 0).sum(axis=1), (d < 0).sum(axis=1))
    return np.asarray(np.minimum(1, 2 * stats.binom.cdf(fewer, n, 0.5)))


def covers(d: Array, truth: float, level: float = LEVEL) -> Array:
    """Whether the t interval holds the true mean: [R] booleans."""
    n = d.shape[1]
    half = stats.t.ppf(1 - level / 2, n - 1) * d.std(axis=1, ddof=1) / np.sqrt(n)
    return np.abs(d.mean(axis=1) - truth) <= half


def staged_rejection(d: Array, plan: SequentialPlan) -> tuple[Array, Array]:
    """Whether [R] runs of the staged rule ever decide, and the seeds they used."""
    decided = np.zeros(len(d), dtype=bool)
    used = np.full(len(d), plan.stages[-1], dtype=float)
    for n, share in zip(plan.stages, plan.shares, strict=True):
        now = ~decided & (t_test(d[:, :n]) <= share)
        used[now] = n
        decided |= now
    return decided, used


def main() -> None:
    """Print the tables as Markdown."""
    rng = np.random.default_rng(0)
    tests = {"paired t": t_test, "signed rank": wilcoxon, "sign flip": sign_flip, "sign": sign}
    print("False-claim rate at level 0.05 with no true difference | power at one deviation\n")
    print("| noise | n | " + " | ".join(tests) + " | coverage of the t interval |")
    print("|---|---|" + "---|" * (len(tests) + 1))
    for name, draw in NOISE.items():
        for n in (5, 10):
            d = draw(rng, (REPETITIONS, n))
            cells = []
            for test in tests.values():
                sample = d[: REPETITIONS // 5] if test is sign_flip else d
                found, power = test(sample) <= LEVEL, test(sample + 1) <= LEVEL
                cells.append(f"{found.mean():.3f}, {power.mean():.3f}")
            print(f"| {name} | {n} | " + " | ".join(cells) + f" | {covers(d, 0).mean():.3f} |")
    theory = t_test_power(1.0, np.array([5, 10]), LEVEL)
    print(f"\nnoncentral t, one deviation: {theory[0]:.3f} at n = 5, {theory[1]:.3f} at n = 10\n")

    plan = SequentialPlan(stages(5, 30), LEVEL)
    shares = ", ".join(f"{share:.4f}" for share in plan.shares)
    print(f"Stages {plan.stages}, levels {shares}: share decided, mean seeds\n")
    print("| noise | none | half a deviation | one deviation | peeking at 0.05, none |")
    print("|---|---|---|---|---|")
    for name, draw in NOISE.items():
        d = draw(rng, (REPETITIONS, plan.stages[-1]))
        cells = []
        for effect in (0.0, 0.5, 1.0):
            decided, used = staged_rejection(d + effect, plan)
            cells.append(f"{decided.mean():.3f}, {used.mean():.1f}")
        looks = np.stack([t_test(d[:, :n]) for n in plan.stages])
        print(
            f"| {name} | " + " | ".join(cells) + f" | {(looks <= LEVEL).any(axis=0).mean():.3f} |"
        )


if __name__ == "__main__":
    main()
