"""Result against tuning budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from optiscope.report.appearance import Look
from optiscope.report.number_text import axis_name

__all__ = ["BudgetCurve", "draw_budget"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BudgetCurve:
    """Best selection metric after n trials, n = 1 .. B.

    Attributes:
        middle: [B] median over draws of n trials, or the best so far in the order tried.
        lower: [B] lower quartile, None for the order tried.
        upper: [B] upper quartile, None likewise.
    """

    middle: Array
    lower: Array | None
    upper: Array | None


def draw_budget(
    axes: Axes, curves: Mapping[str, BudgetCurve], looks: Mapping[str, Look], metric: str
) -> None:
    """Best result of n trials against n; a line starts where a result is likelier than none."""
    split, _, name = metric.partition("_")
    scale = 100.0 if name == "accuracy" else 1.0
    for label, curve in curves.items():
        look = looks[label]
        middle = np.where(np.isfinite(curve.middle), scale * curve.middle, np.nan)
        trials = np.arange(1, len(middle) + 1)
        if curve.lower is not None and curve.upper is not None:
            bounded = np.isfinite(curve.lower) & np.isfinite(curve.upper)
            band = axes.fill_between(
                trials,
                scale * np.where(bounded, curve.lower, np.nan),
                scale * np.where(bounded, curve.upper, np.nan),
                color=look.colour,
                alpha=0.13,
                linewidth=0,
            )
            band.set_gid(f"{look.group}-band")
        (line,) = axes.plot(
            trials,
            middle,
            color=look.colour,
            linestyle=look.linestyle,
            marker=look.marker,
            markevery=max(1, len(trials) // 6),
            markeredgecolor="white",
            markeredgewidth=0.5,
        )
        line.set_gid(f"{look.group}-budget")
    axes.set_title("Best result against tuning budget")
    axes.set_xlabel("trials")
    axes.set_ylabel(axis_name(split, name))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
