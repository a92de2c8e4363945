"""What experiments of the talk share: figures beside published ones, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, NullFormatter
from scipy import stats

from optiscope.report.tables.data_table import Cell, DataTable, Row

__all__ = ["Paired", "beside", "paired", "plain_ticks"]

LEVEL = 0.95
"""Of the interval of a paired difference."""


def beside(rows: Iterable[tuple[str, str, str, str]]) -> DataTable:
    """What, published, here, and what differs in how it was measured; a row each."""
    return DataTable(
        ["figure", "#published", "#here", "what differs"],
        [
            Row([Cell(what), Cell(old), Cell(new), Cell(why, "words")])
            for what, old, new, why in rows
        ],
    )


def plain_ticks(*axes: Axis) -> None:
    """Numbers in place of powers on logarithmic axes: pages show no mathematical text."""
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class Paired:
    """The mean of differences between two methods over seeds, with a t-interval.

    Attributes:
        mean: of the differences.
        low, high: its 95 % interval; infinite with a single seed.
        count: of seeds.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def undecided(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0 <= self.high

    def words(self, what: str) -> str:
        """The difference of ``what`` in words."""
        if self.count < 2:
            return f"{what}: {self.mean:+.3g}, a single pair, which has no interval"
        return (
            f"{what}: {self.mean:+.3g} ({LEVEL:.0%} interval {self.low:+.3g} to {self.high:+.3g}, "
            f"{self.count} paired seeds)"
        )


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """First less second, seed by seed.

    Raises:
        ValueError: not one value of each for every seed.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, count = fmean(differences), len(differences)
    if count < 2:
        return Paired(mean, -math.inf, math.inf, count)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * stdev(differences) / math.sqrt(count)
    return Paired(mean, mean - reach, mean + reach, count)
