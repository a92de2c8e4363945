"""Whether a figure of ours agrees with the published one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from optiscope.reproduction.published_figures import Published

__all__ = ["LEVEL", "Compared"]

LEVEL = 0.05
"""Two means agree unless Welch's t test tells them apart at this level."""


@dataclass(frozen=True)
class Compared:
    """One figure, as published and as found here.

    Attributes:
        what: the figure, in words.
        published: mean over runs; None where it was not published.
        ours: values of our runs, one a seed; NaN for one that failed.
        unit: ``%`` for shares, ``×`` for ratios.
        note: explanation of a difference, known beforehand; shown where they differ.
    """

    what: str
    published: Published | None
    ours: Sequence[float]
    unit: str = "%"
    note: str = ""

    @property
    def finished(self) -> list[float]:
        """Values of those of our runs that did not fail."""
        return [value for value in self.ours if not math.isnan(value)]

    @property
    def mean(self) -> float:
        """Of our runs that finished; NaN where none did."""
        return fmean(self.finished) if self.finished else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of our runs that finished (ddof 1); NaN for fewer than two."""
        return stdev(self.finished) if len(self.finished) > 1 else math.nan

    @property
    def p_value(self) -> float:
        """Of Welch's t test (SciPy's) between the two means; NaN for one run each.

        Where one side has a single run, it is taken to vary as the other side's runs do.
        """
        if self.published is None or not self.finished:
            return math.nan
        theirs, runs = self.published, len(self.finished)
        if runs == theirs.runs == 1:
            return math.nan
        single = min(runs, theirs.runs) == 1
        sides = ((self.mean, self.deviation, runs), tuple(vars(theirs).values()))
        numbers = [0.0 if math.isnan(x) and single else x for side in sides for x in side]
        return float(stats.ttest_ind_from_stats(*numbers, equal_var=single).pvalue)

    @property
    def verdict(self) -> str:
        """``agree``, ``differ``, ``failed alike``, or why the two cannot be compared.

        Where one of our runs failed and the published mean exists, they differ.
        """
        if self.published is None:
            return "not published"
        if not self.ours:
            return "not run here"
        failed_there = math.isnan(self.published.mean)
        if len(self.finished) < len(self.ours) or failed_there:
            return "failed alike" if failed_there and not self.finished else "differ"
        if math.isnan(self.p_value):
            return "one run each"
        return "agree" if self.p_value > LEVEL else "differ"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "ours": list(self.ours), "mean": self.mean, "verdict": self.verdict}
