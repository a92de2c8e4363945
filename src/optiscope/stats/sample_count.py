"""How many samples a test set has, as far as accuracies tell, and what a difference is in samples.

Every accuracy is a whole number of samples over their number N, so that N is the least common
denominator of the accuracies, or, rarely, a multiple of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Final

__all__ = ["HANDFUL", "sample_count"]

HANDFUL: Final = 5
"""Test samples below which a difference is as much a property of the samples."""

MOST: Final = 200_000
"""Samples of a test set at most: a larger denominator says that these are no shares of samples."""
FEWEST: Final = 30
"""Samples at least: a smaller denominator is of rounded numbers, not of a test set."""
ROUNDING: Final = 1e-12


def sample_count(accuracies: Iterable[float]) -> int | None:
    """Number of samples that accuracies are shares of; None where they are of no plausible one.

    Args:
        accuracies: of runs with one test set; what is not finite is left out.
    """
    count = 1
    for value in accuracies:
        if not math.isfinite(value):
            continue
        share = Fraction(value).limit_denominator(MOST)
        if abs(float(share) - value) > ROUNDING:
            return None
        count = math.lcm(count, share.denominator)
        if count > MOST:
            return None
    return count if count >= FEWEST else None
