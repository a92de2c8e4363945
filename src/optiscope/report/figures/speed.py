"""Speeds beside a baseline: bars per problem, the mean, and the line at one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from optiscope.report.appearance import INK, Look
from optiscope.stats.speed import MeanSpeed, Speed

__all__ = ["draw_speeds", "rows_of_speeds"]

MEAN = "geometric mean"


def rows_of_speeds(speeds: Sequence[Speed], means: Mapping[str, MeanSpeed]) -> list[str]:
    """Rows from top to bottom: the mean, then the problems in their order."""
    return [MEAN] * bool(means) + list(dict.fromkeys(one.problem for one in speeds))


def draw_speeds(
    axes: Axes, speeds: Sequence[Speed], means: Mapping[str, MeanSpeed], looks: Mapping[str, Look]
) -> None:
    """A row per problem and a bar per algorithm, from the line at one; whiskers are intervals.

    An arrow stands where the speed is a bound: it lies beyond the bar's end. A mean that mixes
    bounds of both kinds is no estimate: its bar is not filled, and has no whisker.
    """
    rows, labels = rows_of_speeds(speeds, means), list(means)
    width = 0.8 / max(1, len(labels))
    for k, label in enumerate(labels):
        bars: list[tuple[str, Speed | MeanSpeed]] = [(MEAN, means[label])]
        bars += [(one.problem, one) for one in speeds if one.algorithm == label]
        for name, one in bars:
            place = rows.index(name) + (k - (len(labels) - 1) / 2) * width
            low, high = one.steps_interval
            mixed = one.bound == "bounds of both kinds"
            axes.barh(
                place,
                one.steps - 1.0,
                0.9 * width,
                left=1.0,
                facecolor="none" if mixed else looks[label].color,
                edgecolor=looks[label].color if mixed else "none",
                alpha=1.0 if name == MEAN else 0.75,
                label=label if name == MEAN else None,
            )
            if not all(one.ends):
                axes.plot([low, high], [place, place], color=INK, linewidth=1.0, zorder=4)
            if one.bound in ("at least", "at most"):
                axes.plot(
                    one.steps,
                    place,
                    marker=">" if one.bound == "at least" else "<",
                    color=INK,
                    markersize=5.0,
                    zorder=5,
                )
    axes.axvline(1.0, color=INK, linewidth=1.2, zorder=3)
    ends = [end for speed in speeds for end in speed.steps_interval]
    ends += [end for mean in means.values() for end in mean.steps_interval]
    highest = max([2.0, *ends])
    lowest = min([1.0, *ends])
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.9 * lowest, 1.15 * highest)
    ticks = [2.0**n for n in range(math.floor(math.log2(lowest)), 7) if 2.0**n <= 1.15 * highest]
    ticks = [tick for tick in ticks if tick >= 0.9 * lowest]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("times fewer steps to the baseline's loss, log scale")
    if len(labels) > 1:
        axes.legend(loc="lower right")
