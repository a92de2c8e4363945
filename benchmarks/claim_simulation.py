"""Error rates, coverage and power of the tests behind claims: the figures of docs/claims.md.

Run ``python benchmarks/claim_simulation.py``; it takes some minutes on one core.
Index legend: R repetitions; n pairs of seeds; differences are [R, n].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from optiscope.stats.comparison import Verdict
from optiscope.stats.power import t_test_power
from optiscope.stats.sequential import SequentialPlan, sequential_comparison, stages

Array = NDArray[np.float64]
REPETITIONS = 40_000
STAGED = 2000
LEVEL = 0.05
SEEDS = (2, 3, 5, 6, 8, 10)


def collapse(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Final values of an algorithm of which one seed in ten ends far below."""
    return rng.normal(0, 0.01, shape) - 0.3 * (rng.random(shape) < 0.1)


def two_optima(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Final values at one of two optima, half the seeds each."""
    return rng.normal(0, 0.05, shape) + (rng.random(shape) < 0.5)


def twice(draw: Callable[..., Array]) -> Callable[..., Array]:
    """Differences of two algorithms that end at values drawn alike, independently."""
    return lambda rng, shape: draw(rng, shape) - draw(rng, shape)


SYMMETRIC: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "Student t, 3 degrees": lambda rng, shape: rng.standard_t(3, size=shape) / np.sqrt(3),
    "exponential": twice(lambda rng, shape: rng.exponential(size=shape) / np.sqrt(2)),
    "lognormal 1.5": twice(lambda rng, shape: rng.lognormal(0, 1.5, shape)),
    "1 seed in 10 collapses": twice(collapse),
    "accuracy of 360 samples": twice(lambda rng, shape: rng.binomial(360, 0.97, shape) / 360),
    "two optima": twice(two_optima),
    "plus or minus 1, give or take 0.05": lambda rng, shape: (
        rng.choice([-1.0, 1.0], shape) + rng.uniform(-0.05, 0.05, shape)
    ),
}
SKEWED: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "exponential against its mean": lambda rng, shape: rng.exponential(size=shape) - 1,
    "lognormal 1.5 against its mean": lambda rng, shape: (
        rng.lognormal(0, 1.5, shape) - np.exp(1.125)
    ),
    "0.3 lower in 1 seed of 10, against its mean": lambda rng, shape: (
        rng.normal(0, 0.002, shape) + 0.03 - 0.3 * (rng.random(shape) < 0.1)
    ),
}


def t_test(d: Array) -> Array:
    """p-values [R] of the paired t test."""
    return np.asarray(stats.ttest_1samp(d, 0, axis=1).pvalue)


def sign_flip(d: Array) -> Array:
    """p-values [R] of the sign-flip test over all 2^n signs of the differences."""
    signs = np.array(list(itertools.product((1, -1), repeat=d.shape[1])))
    found = []
    for rows in np.array_split(d, max(1, len(d) * len(signs) // 2**22)):
        sums = np.abs(rows @ signs.T)
        found.append((sums >= sums[:, :1] * (1 - 1e-12)).mean(axis=1))
    return np.concatenate(found)


def rates(p: Array) -> float:
    """Share of p-values at or below the level."""
    return float((p <= LEVEL).mean())


def main() -> None:
    """Print the tables as Markdown."""
    rng = np.random.default_rng(0)
    head = (
        "| differences | " + " | ".join(str(n) for n in SEEDS) + " |\n|---|" + "---|" * len(SEEDS)
    )
    for title, cells in (("symmetric", SYMMETRIC), ("mean zero, not symmetric", SKEWED)):
        print(f"Share decided at level 0.05, {title}: paired t test, sign-flip test\n")
        print(head)
        for name, draw in cells.items():
            row = []
            for n in SEEDS:
                d = draw(rng, (REPETITIONS, n))
                row.append(f"{rates(t_test(d)):.3f}, {rates(sign_flip(d)):.3f}")
            print(f"| {name} | " + " | ".join(row) + " |")
        print()

    print("Share decided where the mean is one deviation: paired t test, sign-flip test\n")
    print(head)
    for name in ("normal", "Student t, 3 degrees", "exponential"):
        row = []
        for n in SEEDS:
            d = SYMMETRIC[name](rng, (REPETITIONS, n)) + 1
            row.append(f"{rates(t_test(d)):.3f}, {rates(sign_flip(d)):.3f}")
        print(f"| {name} | " + " | ".join(row) + " |")
    theory = t_test_power(1.0, np.array(SEEDS), LEVEL)
    print("| t test in theory, normal | " + " | ".join(f"{p:.3f}" for p in theory) + " |\n")

    plan = SequentialPlan(stages(5, 30), LEVEL)
    shares = ", ".join(f"{share:.4f}" for share in plan.shares)
    print(f"Stages {plan.stages}, levels {shares}: share ever decided, mean seeds\n")
    print("| differences | none | half a deviation | one deviation |\n|---|---|---|---|")
    for name in ("normal", "Student t, 3 degrees", "two optima"):
        noise = SYMMETRIC[name](rng, (STAGED, plan.stages[-1]))
        noise /= noise.std()
        cells_of = []
        for effect in (0.0, 0.5, 1.0):
            zeros = np.zeros(plan.stages[-1])
            found = [
                sequential_comparison(d + effect, zeros, plan, higher_is_better=True) for d in noise
            ]
            decided = np.mean([c.verdict is not Verdict.UNDECIDED for c in found])
            cells_of.append(f"{decided:.3f}, {np.mean([c.pairs for c in found]):.1f}")
        print(f"| {name} | " + " | ".join(cells_of) + " |", flush=True)


if __name__ == "__main__":
    main()
