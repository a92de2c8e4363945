"""Performance profile: problems solved within a factor of the best algorithm's cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from optiscope.report.appearance import Look
from optiscope.report.axis_scale import set_linear, set_log
from optiscope.report.figures.panel import FigureGroup, Panel
from optiscope.report.legend import Key
from optiscope.stats.naming import counted
from optiscope.stats.profiles import (
    PerformanceProfile,
    TargetCost,
    has_outcome,
    performance_profile,
)
from optiscope.stats.study_table import StudyTables

__all__ = ["draw_profile", "profile_panels", "unrun_problems"]


MANY_PROBLEMS = 6
"""From as many on a profile is more than a few steps."""


def unrun_problems(
    tables: StudyTables, costs: Sequence[TargetCost], looks: Mapping[str, Look]
) -> list[str]:
    """Problems with a target on which an algorithm has not run yet; no profile can use them."""
    problems = dict.fromkeys(cost.problem for cost in costs)
    return [p for p in problems if any(not has_outcome(tables, p, label) for label in looks)]


def profile_panels(
    tables: StudyTables, costs: Sequence[TargetCost], looks: Mapping[str, Look]
) -> FigureGroup | None:
    """Performance profile over all problems, or None where no problem has a target."""
    unrun = unrun_problems(tables, costs, looks)
    medians: dict[str, dict[str, float]] = {}
    for cost in costs:
        medians.setdefault(cost.problem, {})[cost.algorithm] = cost.median_epochs
    table = {
        p: {label: c.get(label, math.inf) for label in looks}
        for p, c in medians.items()
        if p not in unrun
    }
    if not table:
        return None
    lines = tuple(Key.of(look) for look in looks.values())
    profile = performance_profile(table)
    panel = Panel(
        name="all-profile",
        draw=partial(draw_profile, profile=profile, looks=looks),
        description="share of problems solved within a factor of the best algorithm's epochs",
        keys=lines,
    )
    note = (
        f"Share of {counted(profile.problems, 'problem')} on which an algorithm reaches the "
        "target within a factor of the fewest epochs that any algorithm shown needs (medians "
        f"over seeds). Target: median final value of {tables.declaration['reference']}; a "
        "method that misses it has not solved the problem."
    )
    if profile.problems < MANY_PROBLEMS:
        note += (
            f" With {counted(profile.problems, 'problem')} it has few steps: it says more from "
            f"{MANY_PROBLEMS} problems on; until then read the tables of each problem."
        )
    if profile.unsolved:
        note += f" Nobody reached the target of {', '.join(profile.unsolved)}."
    if unrun:
        note += f" Left out: {', '.join(unrun)}, where an algorithm has not run yet."
    without = [p for p in tables.problems if p not in table and p not in unrun]
    if without:
        note += (
            f" Left out: {', '.join(without)}, as most runs of "
            f"{tables.declaration['reference']} failed there or are still to come."
        )
    return FigureGroup("all-profile", "profile", "Profile", note, (panel,), lines)


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
            color=look.color,
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
    axes.set_xlabel("slowdown relative to the fastest (epochs to target)")
    axes.set_ylabel("problems solved (%)")
