"""Mean rank of each algorithm over problems and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from optiscope.report.appearance import Look
from optiscope.report.axis_scale import set_linear
from optiscope.report.figures.panel import FigureGroup, Panel, in_lines, label_width, rows_height
from optiscope.report.figures.profile import unrun_problems
from optiscope.report.legend import Key
from optiscope.stats.profiles import (
    Rank,
    TargetCost,
    ranks,
)
from optiscope.stats.study_table import StudyTables

__all__ = ["draw_ranks", "rank_panels"]


def rank_panels(
    tables: StudyTables, costs: Sequence[TargetCost], looks: Mapping[str, Look]
) -> FigureGroup | None:
    """Mean ranks over all problems, or None where no problem has results of every algorithm."""
    found = ranks(tables, list(looks), generator=np.random.default_rng(0))
    if not found:
        return None
    keys = tuple(Key.of(look, line=False) for look in looks.values())
    panel = Panel(
        name="all-ranks",
        draw=partial(draw_ranks, ranks=found, looks=looks),
        description="mean rank of each algorithm over problems and seeds",
        height=rows_height(len(found)),
        left=label_width([in_lines(r.algorithm) for r in found]),
        keys=keys,
    )
    unrun = set(unrun_problems(tables, costs, looks))
    none_left = bool(unrun) and unrun == {cost.problem for cost in costs}
    note = "There is no profile: on every problem, some algorithm has not run yet. " * none_left + (
        "Rank by final value with each seed, mean over seeds and problems; failed runs come "
        "last. Thick: over resampled seeds, without the outer twentieth; it covers 73 % with three "
        "seeds on one problem, 91 % with ten, and not 95 %. Thin: range "
        "when each problem is left out in turn."
    )
    return FigureGroup("all-ranks", "ranks", "Ranks", note, (panel,), keys)


def draw_ranks(axes: Axes, ranks: Sequence[Rank], looks: Mapping[str, Look]) -> None:
    """Mean rank of each algorithm: interval over seeds thick, leaving problems out thin."""
    for row, rank in enumerate(ranks):
        look = looks[rank.algorithm]
        (thin,) = axes.plot(rank.without_one, [row, row], color=look.color, linewidth=1.0)
        thin.set_gid(f"{look.group}-without")
        (thick,) = axes.plot(rank.interval, [row, row], color=look.color, linewidth=4, alpha=0.45)
        thick.set_gid(f"{look.group}-interval")
        (point,) = axes.plot(
            [rank.mean],
            [row],
            color=look.color,
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
