"""Axes with few ticks, in numbers that people read: 0.001, 0.02, 1."""

from __future__ import annotations

import math
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from optiscope.report.number_text import rate_text

__all__ = ["set_linear", "set_log"]


def set_log(axes: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """Make an axis logarithmic from ``low`` to ``high``, with at least two labelled ticks."""
    decades = math.log10(high / low)
    whole = 1.6 if which == "x" else 2.5  # labels side by side need more room
    if decades > whole:
        subs = [1.0]
    elif decades > 0.7:
        subs = [1.0, 3.0] if which == "x" else [1.0, 2.0, 5.0]
    else:
        subs = [1.0, 2.0, 4.0, 7.0] if which == "x" else [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]
    if which == "x":
        axes.set_xscale("log")
        axes.set_xlim(low, high)
    else:
        axes.set_yscale("log")
        axes.set_ylim(low, high)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=subs, numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: rate_text(value)))
    axis.set_minor_locator(NullLocator())


def set_linear(axes: Axes, which: Literal["x", "y"], *, integer: bool = False) -> None:
    """Give a linear axis at most six intervals."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=6, integer=integer))
