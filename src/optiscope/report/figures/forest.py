"""Paired differences to the baseline: each seed, mean and interval, best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from optiscope.report.answers import effect_text
from optiscope.report.appearance import FAINT, INK, Look
from optiscope.report.axis_scale import set_linear
from optiscope.report.figures.panel import LINE, Panel, file_name, in_lines, label_width
from optiscope.report.legend import Key
from optiscope.stats.claims import Claim
from optiscope.stats.comparison import Comparison, Verdict
from optiscope.stats.refusal import Refusal

__all__ = ["Difference", "differences", "draw_forest", "forest_panel"]


@dataclass(frozen=True)
class Difference:
    """One algorithm beside the baseline; positive values are in the algorithm's favor.

    Attributes:
        label: of the algorithm.
        seeds: difference for each seed, in the metric's unit; empty where a run failed.
        mean: of ``seeds``; NaN where a run failed or the comparison was refused.
        interval: confidence interval, None where there is none.
        decided: whether the difference is significant.
        words: effect and interval, or why there is none.
    """

    label: str
    seeds: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    decided: bool
    words: str


def differences(
    problem: str, claims: Sequence[Claim | Refusal], labels: Sequence[str], baseline: str
) -> list[Difference]:
    """Every algorithm of ``labels`` beside the baseline on one problem, best first.

    Where a run failed or the comparison was refused there is no difference; these come last.
    """
    rows = []
    for claim in claims:
        if claim.problem != problem or baseline not in (claim.a, claim.b):
            continue
        label = claim.b if claim.a == baseline else claim.a
        if label not in labels:
            continue
        if isinstance(claim, Refusal):
            words = f"not compared: {claim.reason}"
            rows.append(Difference(label, (), math.nan, None, False, words))
            continue
        c = claim.comparison if claim.b == baseline else claim.comparison.mirrored
        rows.append(_of_comparison(label, c, claim.metric))
    return sorted(rows, key=lambda row: (math.isnan(row.mean), -row.mean))


def _of_comparison(label: str, c: Comparison, metric: str) -> Difference:
    sign = 1.0 if c.higher_is_better else -1.0
    decided = c.verdict in (Verdict.BETTER, Verdict.WORSE)
    words = effect_text(c, metric)
    if c.difference is None:
        return Difference(label, (), math.nan, None, decided, words)
    seeds = tuple(sign * d for d in c.differences if d is not None)
    interval = None
    if c.interval is not None:
        low, high = sorted(sign * end for end in c.interval)
        interval = (low, high)
    return Difference(label, seeds, sign * c.difference, interval, decided, words)


def forest_panel(
    problem: str,
    metric: str,
    claims: Sequence[Claim | Refusal],
    looks: Mapping[str, Look],
    baseline: str,
) -> Panel | None:
    """The differences on one problem as a panel; None without a baseline or anything beside it."""
    rows = differences(problem, claims, list(looks), baseline)
    if not any(row.seeds for row in rows):
        return None
    return Panel(
        name=f"{file_name(problem)}-differences",
        draw=partial(draw_forest, rows=rows, looks=looks, metric=metric, baseline=baseline),
        description=f"difference of each algorithm to {baseline} in test {metric} on {problem}",
        height=(0.72 + 0.26 * max(len(rows), 2)) / 4.2,
        left=label_width([in_lines(row.label) for row in rows]) - 0.3,
        right=0.2 + 0.062 * max(len(_words(row)) for row in rows),
        keys=tuple(Key.of(look, line=False) for label, look in looks.items() if label != baseline),
    )


def draw_forest(
    axes: Axes,
    rows: Sequence[Difference],
    looks: Mapping[str, Look],
    metric: str,
    baseline: str,
) -> None:
    """One row per algorithm: seeds as ticks, mean as a marker, filled where significant."""
    scale = 100.0 if metric.endswith("accuracy") else 1.0
    low, high = _limits(rows, scale)
    axes.set_xlim(low, high)
    for row, d in enumerate(rows):
        look = looks[d.label]
        if d.interval is not None:
            _draw_interval(axes, row, d.interval, scale, look)
        if d.seeds:
            (ticks,) = axes.plot(
                scale * np.array(d.seeds),
                np.full(len(d.seeds), row + 0.28),
                color=look.color,
                marker="|",
                markersize=5,
                markeredgewidth=1.0,
                linestyle="none",
                zorder=2,
            )
            ticks.set_gid(f"{look.group}-pairs")
            (point,) = axes.plot(
                [scale * d.mean],
                [row],
                color=look.color,
                marker=look.marker,
                markersize=1.35 * look.size,
                markerfacecolor=look.color if d.decided else "white",
                markeredgecolor=look.color,
                markeredgewidth=1.4,
                zorder=4,
            )
            point.set_gid(f"{look.group}-difference")
        words = axes.annotate(
            _words(d),
            (1.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            fontweight="bold" if d.decided else "normal",
            color=INK if d.seeds else FAINT,
        )
        words.set_gid(f"{look.group}-words")
    axes.axvline(0.0, color=INK, linewidth=1.0, zorder=1)
    axes.set_yticks(range(len(rows)), [in_lines(d.label) for d in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    set_linear(axes, "x")
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    unit = "points" if metric.endswith("accuracy") else "lower is better"
    over = baseline if len(baseline) <= LINE else "the baseline"
    axes.set_xlabel(f"gain over {over} ({metric}, {unit})", loc="left")


def _words(d: Difference) -> str:
    """What stands beside a row; the unit is the axis's."""
    return d.words.replace(" points", "") if d.seeds else d.words.partition(":")[0]


def _draw_interval(
    axes: Axes, row: int, interval: tuple[float, float], scale: float, look: Look
) -> None:
    """A line that ends in an arrow where it leaves the axes."""
    limits = axes.get_xlim()
    ends = [min(max(scale * end, limits[0]), limits[1]) for end in interval]
    (line,) = axes.plot(
        ends, [row, row], color=look.color, linewidth=2.0, solid_capstyle="butt", zorder=3
    )
    line.set_gid(f"{look.group}-interval")
    for end, limit, arrow in zip(interval, limits, ("<", ">"), strict=True):
        if (scale * end - limit) * (1 if arrow == ">" else -1) > 0:
            (tip,) = axes.plot(
                [limit], [row], color=look.color, marker=arrow, markersize=5, clip_on=False
            )
            tip.set_gid(f"{look.group}-beyond")


def _limits(rows: Sequence[Difference], scale: float) -> tuple[float, float]:
    """Limits that show every seed, and intervals up to half the width of these beyond them."""
    seeds = np.array([0.0, *(scale * s for d in rows for s in d.seeds)])
    low, high = float(seeds.min()), float(seeds.max())
    room = 0.5 * (high - low) or 1.0
    ends = [scale * end for d in rows if d.interval is not None for end in d.interval]
    low = max(min([low, *ends]), low - room)
    high = min(max([high, *ends]), high + room)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin
