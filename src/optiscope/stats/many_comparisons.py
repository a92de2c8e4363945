"""Correction of a family of comparisons, so that the whole family errs at the stated level.

Index legend: m comparisons in the family.
"""

from __future__ import annotations

from collections.abc import Sequence

from optiscope.stats.comparison import Comparison, decide

__all__ = ["correct_for_many", "step_down_levels"]


def step_down_levels(p_values: Sequence[Sequence[float]], level: float) -> list[float]:
    """Level at which each comparison is decided, by Holm's step-down procedure.

    The probability that the family holds any false verdict is at most ``level``, whatever the
    dependence between the comparisons. A comparison with a margin tests two hypotheses (no
    difference; a difference of the margin or more) of which only one can be true, so that it
    counts once until both are rejected (Shaffer 1986). Without margins this is Holm (1979).

    Args:
        p_values: [m] comparisons, each with the p-values of its one or two hypotheses.
        level: for the family.

    Returns:
        [m] levels: comparing a p-value with the level of its comparison gives the procedure's
        decision. The levels lie between ``level / m`` and ``level``.
    """
    ordered = sorted((p, i) for i, values in enumerate(p_values) for p in values)
    unrejected = [len(values) for values in p_values]
    levels = [0.0] * len(p_values)
    open_comparisons = len(p_values)
    for p, i in ordered:
        step = level / open_comparisons
        if p > step:
            break
        levels[i] = step
        unrejected[i] -= 1
        open_comparisons -= unrejected[i] == 0
    # What is left was tried, and failed, at the level of the step that stopped.
    last = level / max(open_comparisons, 1)
    return [last if left else own for own, left in zip(levels, unrejected, strict=True)]


def correct_for_many(
    comparisons: Sequence[Comparison], level: float, *, to_come: int = 0
) -> list[Comparison]:
    """The comparisons decided again so that all their verdicts hold together at ``level``.

    ``to_come`` more that the family will hold count as not rejected, so that a verdict found before
    they are in is found after.

    Intervals follow: each is stated at the level of its own decision, so that it excludes zero
    exactly where a difference was found, and covers the true difference with probability
    ``1 - level`` at least.
    """
    p_values = [*(c.p_values for c in comparisons), *[(1.0,)] * to_come]
    levels = step_down_levels(p_values, level)[: len(comparisons)]
    return [decide(c, own) for c, own in zip(comparisons, levels, strict=True)]
