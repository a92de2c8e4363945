"""Comparison of two algorithms by pairs of seeds.

Index legend: n pairs; entry i of a and of b come from the same seed.
Why these tests: docs/claims.md, whose figures benchmarks/claim_simulation.py prints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from optiscope.errors import OptiscopeError, shorten
from optiscope.stats import sign_flip
from optiscope.stats.power import (
    first_deciding_flip_test,
    first_deciding_sign_test,
    first_deciding_t_test,
)

__all__ = [
    "ASSUMPTIONS",
    "Assumption",
    "Comparison",
    "ComparisonError",
    "Verdict",
    "decide",
    "paired_comparison",
]

FLIP_TEST = "scipy.stats.permutation_test"
T_TEST = "scipy.stats.ttest_rel"
SIGN_TEST = "scipy.stats.binomtest"

Array = NDArray[np.float64]
Assumption = Literal["symmetric", "normal"]
Reason = Literal["too few seeds", "more seeds needed", "too close"]

ASSUMPTIONS: tuple[Assumption, ...] = ("symmetric", "normal")
"""What is assumed of differences between algorithms that perform alike, the default first.

``symmetric`` follows from performing alike: exchanging two such algorithms within a seed changes
nothing. ``normal`` is more, and no number of seeds that anybody runs can check it.
"""


class ComparisonError(OptiscopeError, ValueError):
    """Two sets of results cannot be compared; the message says why and what to do."""


class Verdict(StrEnum):
    """What the pairs show about a, compared with b."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Comparison:
    """What n pairs of seeds say about a, compared with b.

    Attributes:
        differences: [n] a - b per pair; None where one of its runs diverged.
        diverged_a: pairs in which a diverged.
        diverged_b: pairs in which b diverged.
        wins: pairs in which a is better.
        losses: pairs in which b is better.
        mean_a: mean of a, None where one of its runs diverged.
        mean_b: mean of b, None where one of its runs diverged.
        difference: mean of a - b in the metric's unit; None where a run diverged, because a
            diverged run has no value to average.
        deviation: standard deviation of the paired differences (ddof 1); None in the same case.
        interval: of the centre of the differences at ``1 - level``: all values that the test does
            not reject. None in the same case, where all differences are equal (their spread is
            unknown), and where there are too few pairs for the level (no value is rejected).
        p_value: of the hypothesis that neither is better, two-sided.
        test: SciPy's name of the test behind ``p_value``.
        margin: differences up to this are of no importance; None where none was declared.
        equivalence_p_value: of the hypothesis that the difference is the margin or more, from two
            one-sided tests; None without a margin.
        level: at which this comparison was decided, after correction for many comparisons.
        verdict: better, worse, equivalent or undecided, of a compared with b.
        higher_is_better: whether a larger value of the metric is better.
    """

    differences: tuple[float | None, ...]
    diverged_a: int
    diverged_b: int
    wins: int
    losses: int
    mean_a: float | None
    mean_b: float | None
    difference: float | None
    deviation: float | None
    interval: tuple[float, float] | None
    p_value: float
    test: str
    margin: float | None
    equivalence_p_value: float | None
    level: float
    verdict: Verdict
    higher_is_better: bool

    @property
    def pairs(self) -> int:
        """Number n of pairs."""
        return len(self.differences)

    @property
    def assumes_normal(self) -> bool:
        """Whether the verdict rests on differences being normally distributed."""
        return self.test == T_TEST

    @property
    def fewest_seeds(self) -> int:
        """Fewest pairs with which this comparison's test can find a difference at its level."""
        return 2 if self.assumes_normal else sign_flip.fewest_seeds(self.level)

    @property
    def undecided_because(self) -> Reason | None:
        """Why there is no verdict; None where there is one.

        ``too few seeds``: the test cannot decide with so few, whatever they show. ``too close``:
        the difference measured so far is so small beside its spread that even a thousand seeds
        would not show it. ``more seeds needed``: neither.
        """
        if self.verdict is not Verdict.UNDECIDED:
            return None
        if self.pairs < self.fewest_seeds:
            return "too few seeds"
        return "too close" if self.seeds_to_decide is None else "more seeds needed"

    @property
    def rank_p_value(self) -> float | None:
        """P-value of Wilcoxon's signed-rank test: a check, which decides nothing.

        None where a run diverged.
        """
        d = [v for v in self.differences if v is not None]
        if len(d) < self.pairs:
            return None
        return float(stats.wilcoxon(d).pvalue) if any(d) else 1.0

    @property
    def p_values(self) -> tuple[float, ...]:
        """Of the hypotheses this comparison tests: no difference and, with a margin, no less."""
        if self.equivalence_p_value is None:
            return (self.p_value,)
        return (self.p_value, self.equivalence_p_value)

    @property
    def seeds_to_decide(self) -> int | None:
        """Estimate of the pairs that decide with probability 0.8, more than there are.

        It takes the effect and spread measured so far for the true ones, and this comparison's
        own level. None where the verdict stands already, or not within 1000 pairs.
        """
        if self.verdict is not Verdict.UNDECIDED:
            return None
        if self.test != SIGN_TEST and self.difference is not None and self.deviation is not None:
            effect = self.difference / self.deviation
            margin = None if self.margin is None else self.margin / self.deviation
            estimate = first_deciding_t_test if self.assumes_normal else first_deciding_flip_test
            return estimate(effect, margin, self.level, above=self.pairs)
        win, loss = self.wins / self.pairs, self.losses / self.pairs
        return first_deciding_sign_test(win, loss, self.level, above=self.pairs)

    @property
    def mirrored(self) -> Comparison:
        """The same comparison of b with a."""
        turned = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
        return replace(
            self,
            diverged_a=self.diverged_b,
            diverged_b=self.diverged_a,
            wins=self.losses,
            losses=self.wins,
            mean_a=self.mean_b,
            mean_b=self.mean_a,
            differences=tuple(None if v is None else -v for v in self.differences),
            difference=None if self.difference is None else -self.difference,
            interval=None if self.interval is None else (-self.interval[1], -self.interval[0]),
            verdict=turned.get(self.verdict, self.verdict),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        plain["verdict"] = str(self.verdict)
        plain["differences"] = list(self.differences)
        plain["pairs"] = self.pairs
        plain["rank_p_value"] = self.rank_p_value
        plain["seeds_to_decide"] = self.seeds_to_decide
        plain["fewest_seeds"] = self.fewest_seeds
        plain["undecided_because"] = self.undecided_because
        plain["interval"] = None if self.interval is None else list(self.interval)
        return plain


def paired_comparison(
    a: Sequence[float],
    b: Sequence[float],
    *,
    level: float = 0.05,
    margin: float | None = None,
    higher_is_better: bool,
    assumption: Assumption = "symmetric",
) -> Comparison:
    """Comparison of a with b from values paired by seed.

    The sign-flip test decides, whose level holds for every symmetric distribution of differences
    and which therefore decides nothing below six pairs at level 0.05; its interval is stated. With
    ``assumption="normal"`` it is the paired t test.

    A value that is not finite stands for a diverged run: an outcome worse than every number, and
    equal to another diverged run. With one, no mean difference exists: the exact sign test counts
    the pairs won and lost, no interval is stated, and equivalence is never found. The sign test
    also decides where all differences are equal, because their spread is then unknown.

    Args:
        a: [n] final values of the first algorithm, one per seed.
        b: [n] the same of the second, in the same order of seeds.
        level: largest probability of a false verdict.
        margin: differences up to this are declared to be of no importance.
        higher_is_better: True for accuracies, False for losses.
        assumption: about differences between algorithms that perform alike, see
            :data:`ASSUMPTIONS`.

    Raises:
        ComparisonError: unequal lengths, fewer than two pairs, level or margin out of range.
    """
    x, y = _checked(a, b, level, margin)
    if assumption not in ASSUMPTIONS:
        raise ComparisonError(
            f"assumption must be {' or '.join(map(repr, ASSUMPTIONS))}, got {shorten(assumption)}"
        )
    failed_x, failed_y = ~np.isfinite(x), ~np.isfinite(y)
    wins, losses = _wins_and_losses(x, y, higher_is_better)
    comparison = Comparison(
        differences=tuple(float(v) if math.isfinite(v) else None for v in x - y),
        diverged_a=int(failed_x.sum()),
        diverged_b=int(failed_y.sum()),
        wins=wins,
        losses=losses,
        mean_a=None if failed_x.any() else float(x.mean()),
        mean_b=None if failed_y.any() else float(y.mean()),
        difference=None,
        deviation=None,
        interval=None,
        p_value=1.0,
        test=SIGN_TEST,
        margin=margin,
        equivalence_p_value=None if margin is None else 1.0,
        level=level,
        verdict=Verdict.UNDECIDED,
        higher_is_better=higher_is_better,
    )
    if not (failed_x.any() or failed_y.any()):
        comparison = _measure(comparison, x, y, assumption)
    if comparison.test == SIGN_TEST:
        comparison = replace(comparison, p_value=_sign_test(wins, losses))
    return decide(comparison, level)


def decide(comparison: Comparison, level: float) -> Comparison:
    """The same measurements with interval and verdict at another level.

    Where a margin was declared and the difference is shown to be inside it, the verdict is
    equivalent, even if the difference is also shown to exist.
    """
    c = comparison
    interval = None
    if c.test == T_TEST and c.difference is not None and c.deviation is not None:
        half = float(special.stdtrit(c.pairs - 1, 1 - level / 2)) * c.deviation / math.sqrt(c.pairs)
        interval = (c.difference - half, c.difference + half)
    elif c.test == FLIP_TEST:
        interval = sign_flip.flip_interval(_finite(c.differences), level)
    if c.equivalence_p_value is not None and c.equivalence_p_value <= level:
        verdict = Verdict.EQUIVALENT
    elif c.p_value <= level:
        a_wins = c.wins > c.losses
        if c.test != SIGN_TEST and c.difference is not None:
            a_wins = (c.difference > 0) == c.higher_is_better
        verdict = Verdict.BETTER if a_wins else Verdict.WORSE
    else:
        verdict = Verdict.UNDECIDED
    return replace(c, level=level, interval=interval, verdict=verdict)


def _checked(
    a: Sequence[float], b: Sequence[float], level: float, margin: float | None
) -> tuple[Array, Array]:
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ComparisonError(
            f"expected one value per seed for both, in the same order, got shapes {x.shape} "
            f"and {y.shape}: pass only the seeds that both have"
        )
    if len(x) < 2:
        raise ComparisonError(
            f"expected at least 2 pairs of seeds, got {len(x)}: one run shows nothing, run more"
        )
    if not 0 < level < 1:
        raise ComparisonError(f"level must lie between 0 and 1, got {level}: 0.05 is usual")
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise ComparisonError(f"margin must be positive, got {margin}: leave it out for none")
    return np.where(np.isfinite(x), x, math.nan), np.where(np.isfinite(y), y, math.nan)


def _wins_and_losses(x: Array, y: Array, higher_is_better: bool) -> tuple[int, int]:
    worst = -math.inf if higher_is_better else math.inf
    x, y = (np.where(np.isfinite(v), v, worst) for v in (x, y))
    above, below = int((x > y).sum()), int((x < y).sum())
    return (above, below) if higher_is_better else (below, above)


def _sign_test(wins: int, losses: int) -> float:
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def _finite(differences: Sequence[float | None]) -> list[float]:
    return [v for v in differences if v is not None]


def _measure(comparison: Comparison, x: Array, y: Array, assumption: Assumption) -> Comparison:
    """Fill in what exists where no run diverged."""
    d, margin = x - y, comparison.margin
    largest = float(np.abs(d).max())
    deviation = float(d.std(ddof=1))
    filled = replace(
        comparison,
        difference=float(d.mean()),
        deviation=deviation,
    )
    # Equal differences leave rounding errors of the values' size as their only spread.
    if deviation <= 1e-14 * max(float(np.abs(x).max()), float(np.abs(y).max())):
        if margin is not None:
            filled = replace(filled, equivalence_p_value=0.5 ** len(d) if largest < margin else 1.0)
        return replace(filled, deviation=0.0)
    if assumption == "symmetric":
        differences = _finite(comparison.differences)
        p_value = sign_flip.flip_p_value(differences)
        filled = replace(filled, p_value=p_value, test=FLIP_TEST)
        if margin is not None:
            equal = sign_flip.equivalence_p_value(differences, margin)
            filled = replace(filled, equivalence_p_value=equal)
        return filled
    result = stats.ttest_rel(x, y)
    filled = replace(filled, p_value=float(result.pvalue), test=T_TEST)
    if margin is not None:
        error = deviation / math.sqrt(len(d))
        nearer = (margin - abs(float(d.mean()))) / error
        filled = replace(filled, equivalence_p_value=float(stats.t.sf(nearer, len(d) - 1)))
    return filled
