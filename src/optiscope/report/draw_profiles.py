"""Many problems at once: performance profiles and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from optiscope.report.appearance import Look
from optiscope.report.axis_scale import set_linear, set_log
from optiscope.report.panels import in_lines
from optiscope.stats.profiles import PerformanceProfile, Rank

__all__ = ["draw_profile", "draw_ranks"]


def draw_profile(axes: Axes, profile: PerformanceProfile, looks: Mapping[str, Look]) -> None:
    """Share of problems solved against the factor of the best algorithm's cost, as steps."""
    end = max(float(profile.factors[-1]) * 1.08, 1.2)
    factors = np.append(profile.factors, end)
    for label, shares in profile.shares.items():
        look = looks[label]
        (line,) = axes.plot(
            factors,
            100 * np.append(shares, shares[-1]),
            drawstyle="steps-post",
            color=look.colour,
            linestyle=look.linestyle,
            marker=look.marker,
            markersize=look.size,
            markevery=[0, len(factors) - 1],
            markeredgecolor="white",
            markeredgewidth=0.5,
            clip_on=False,
        )
        line.set_gid(f"{look.group}-profile")
    if end > 4:
        set_log(axes, "x", 1.0, end)
    else:
        set_linear(axes, "x")
        axes.set_xlim(1.0, end)
    axes.set_ylim(0, 103)
    axes.set_title("Performance profile")
    axes.set_xlabel("factor of the fewest epochs to the target")
    axes.set_ylabel("problems solved (%)")


def draw_ranks(axes: Axes, ranks: Sequence[Rank], looks: Mapping[str, Look]) -> None:
    """Mean rank of each algorithm: interval over seeds thick, leaving problems out thin."""
    for row, rank in enumerate(ranks):
        look = looks[rank.algorithm]
        (thin,) = axes.plot(rank.without_one, [row, row], color=look.colour, linewidth=1.0)
        thin.set_gid(f"{look.group}-without")
        (thick,) = axes.plot(rank.interval, [row, row], color=look.colour, linewidth=4, alpha=0.45)
        thick.set_gid(f"{look.group}-interval")
        (point,) = axes.plot(
            [rank.mean],
            [row],
            color=look.colour,
            marker=look.marker,
            markersize=1.4 * look.size,
            markeredgecolor="white",
            linestyle="none",
        )
        point.set_gid(f"{look.group}-rank")
    axes.set_yticks(range(len(ranks)), [in_lines(r.algorithm) for r in ranks])
    axes.set_ylim(len(ranks) - 0.4, -0.6)
    axes.set_xlim(0.8, len(ranks) + 0.2)
    axes.grid(axis="y", visible=False)
    set_linear(axes, "x", integer=True)
    axes.set_title("Mean rank")
    axes.set_xlabel("mean rank (1 is best)", loc="right")
    axes.set_ylabel("algorithm")
