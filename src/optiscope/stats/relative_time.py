"""How much longer one optimizer takes than another, from interleaved repetitions.

Index legend: R repetitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["TimeRatio", "time_ratio"]


@dataclass(frozen=True)
class TimeRatio:
    """Ratio of two times with an interval.

    Attributes:
        median: of the ratios of the repetitions.
        low, high: interval of the typical ratio at the given level.
        repetitions: R.
    """

    median: float
    low: float
    high: float
    repetitions: int


def time_ratio(
    times: Sequence[float], reference: Sequence[float], *, level: float = 0.05
) -> TimeRatio:
    """Ratio ``times / reference``, paired by repetition.

    The interval is Student's for the mean logarithm of the ratio (SciPy's), so that a ratio and
    its inverse have the same interval turned over; with one repetition it is the whole line.

    Args:
        times: [R] seconds.
        reference: [R] seconds of the reference in the same repetitions.
        level: probability that the interval misses.

    Raises:
        ValueError: different lengths, none, or a time that is not positive.
    """
    if len(times) != len(reference) or not len(times):
        raise ValueError(
            f"expected as many times as reference times, got {len(times)} and {len(reference)}"
        )
    if min(*times, *reference) <= 0:
        raise ValueError("times must be positive: was anything measured?")
    logs = np.log(np.asarray(times) / np.asarray(reference))
    if len(logs) < 2:
        return TimeRatio(float(np.exp(logs[0])), 0.0, float("inf"), 1)
    half = stats.t.ppf(1 - level / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, high = np.exp(logs.mean() - half), np.exp(logs.mean() + half)
    return TimeRatio(float(np.exp(np.median(logs))), float(low), float(high), len(logs))
