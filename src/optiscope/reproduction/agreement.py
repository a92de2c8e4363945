"""Whether a figure of ours agrees with the published one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from optiscope.reproduction.published_figures import Published

__all__ = ["ERRORS", "Compared"]

ERRORS = 2.0
"""Combined standard errors within which two means agree."""


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
    def mean(self) -> float:
        """Of our runs; NaN where one failed."""
        return fmean(self.ours) if self.ours else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of our runs (ddof 1); NaN for fewer than two."""
        return stdev(self.ours) if len(self.ours) > 1 else math.nan

    @property
    def error(self) -> float:
        """Combined standard error of the difference of means.

        Where one side has a single run, it is taken to vary as the other side's runs do.
        """
        if self.published is None:
            return math.nan
        ours, theirs = self.deviation, self.published.deviation
        ours = theirs if math.isnan(ours) else ours
        theirs = ours if math.isnan(theirs) else theirs
        return math.sqrt(ours**2 / max(len(self.ours), 1) + theirs**2 / self.published.runs)

    @property
    def verdict(self) -> str:
        """``agree``, ``differ``, ``failed alike``, or why the two cannot be compared."""
        if self.published is None:
            return "not published"
        if not self.ours:
            return "not run here"
        failed, failed_there = math.isnan(self.mean), math.isnan(self.published.mean)
        if failed or failed_there:
            return "failed alike" if failed and failed_there else "differ"
        if math.isnan(self.error):
            return "one run each"
        return "agree" if abs(self.mean - self.published.mean) <= ERRORS * self.error else "differ"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "ours": list(self.ours), "mean": self.mean, "verdict": self.verdict}
