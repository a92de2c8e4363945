"""Adding seeds in stages until a comparison is decided, without raising the false-claim rate.

Index legend: K stages; n_k pairs of seeds at stage k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from optiscope.stats.comparison import (
    Assumption,
    Comparison,
    ComparisonError,
    Verdict,
    paired_comparison,
)
from optiscope.stats.sign_flip import fewest_seeds

__all__ = ["SequentialPlan", "next_stage", "sequential_comparison", "stages"]

GROWTH = 1.5
"""Each stage has about this many times the seeds of the one before."""


@dataclass(frozen=True)
class SequentialPlan:
    """Stages fixed before the first seed is run, and the level spent at each.

    The level is shared among the stages in proportion to the seeds each one adds, and a stage
    tests at its own share. Whatever the dependence between looks at growing data, and whichever
    test each look uses, the probability that any look errs is then at most the sum of the
    shares, which is ``level``. For the same reason the intervals of all stages hold together at
    ``1 - level``, so that the one at which the rule stops does too.

    A stage with too few seeds for its share, so that its test could not decide whatever they show,
    leaves its share to the next one.

    Attributes:
        stages: [K] numbers of seeds n_1 < ... < n_K; the last is the cap.
        level: largest probability of a false verdict over all stages.
        assumption: of the comparisons, see :data:`optiscope.stats.comparison.ASSUMPTIONS`.
    """

    stages: tuple[int, ...]
    level: float = 0.05
    assumption: Assumption = "symmetric"

    def __post_init__(self) -> None:
        pairs = zip(self.stages, self.stages[1:], strict=False)
        if not self.stages or self.stages[0] < 2 or any(b <= a for a, b in pairs):
            raise ValueError(
                f"stages must grow from at least 2 seeds, got {list(self.stages)}: "
                "use stages(first, cap)"
            )
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {self.level}: 0.05 is usual")

    @property
    def shares(self) -> tuple[float, ...]:
        """[K] level of each stage, 0 where it cannot decide; they sum to ``level`` at most."""
        before = (0, *self.stages[:-1])
        shares, left = [], 0.0
        for n, m in zip(self.stages, before, strict=True):
            left += self.level * (n - m) / self.stages[-1]
            can_decide = self.assumption == "normal" or n >= fewest_seeds(left)
            shares.append(left if can_decide else 0.0)
            left = 0.0 if can_decide else left
        return tuple(shares)


def stages(first: int = 5, cap: int = 30) -> tuple[int, ...]:
    """Numbers of seeds from ``first`` to ``cap``, each half as many again as the one before.

    Raises:
        ValueError: ``first`` below 2 or above ``cap``.
    """
    if not 2 <= first <= cap:
        raise ValueError(
            f"expected 2 <= first <= cap, got first {first} and cap {cap}: raise the cap"
        )
    found = [first]
    # A stage that would leave less than half a step to the cap is the cap itself.
    while found[-1] * GROWTH * (1 + (GROWTH - 1) / 2) < cap:
        found.append(round(found[-1] * GROWTH))
    return (*found, cap) if found[-1] < cap else tuple(found)


def sequential_comparison(
    a: Sequence[float],
    b: Sequence[float],
    plan: SequentialPlan,
    *,
    margin: float | None = None,
    higher_is_better: bool,
) -> Comparison:
    """Comparison at the first stage that decides, or else at the last stage reached.

    A verdict once reached stands: seeds that were added later, for other pairs of the study, do
    not enter it.

    Args:
        a: [n] final values of the first algorithm in the order in which seeds were added.
        b: [n] the same of the second.
        plan: the stages fixed beforehand; at least the first must be reached.
        margin: as in :func:`paired_comparison`.
        higher_is_better: as in :func:`paired_comparison`.

    Raises:
        ComparisonError: the first stage is not reached; or as :func:`paired_comparison`.
    """
    if len(a) < plan.stages[0]:
        raise ComparisonError(
            f"the first stage has {plan.stages[0]} seeds, got {len(a)}: run them before looking"
        )
    shares = plan.shares
    following = next((share for share in shares if share > 0), plan.level)
    for n, share in zip(plan.stages, shares, strict=True):
        if n > len(a):
            break
        found = paired_comparison(
            a[:n],
            b[:n],
            level=share or following,
            margin=margin,
            higher_is_better=higher_is_better,
            assumption=plan.assumption,
        )
        if not share:  # it spends nothing, and is stated at the level of the stage to come
            found = replace(found, verdict=Verdict.UNDECIDED)
        following = share or following
        if found.verdict is not Verdict.UNDECIDED:
            break
    return found


def next_stage(comparisons: Sequence[Comparison], plan: SequentialPlan, seeds: int) -> int | None:
    """Number of seeds to have next; None where all is decided or the cap is reached.

    Args:
        comparisons: from :func:`sequential_comparison` on the seeds there are.
        plan: the stages.
        seeds: number of seeds there are.
    """
    beyond = [n for n in plan.stages if n > seeds]
    if not beyond:
        return None
    if seeds >= plan.stages[0] and all(c.verdict is not Verdict.UNDECIDED for c in comparisons):
        return None
    return beyond[0]
