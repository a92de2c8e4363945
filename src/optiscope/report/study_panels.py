"""The figures over all problems of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from optiscope.report.appearance import Look
from optiscope.report.draw_profiles import draw_profile, draw_ranks
from optiscope.report.legend import Key
from optiscope.report.panels import FigureGroup, Panel, in_lines, label_width, rows_height
from optiscope.stats.naming import counted
from optiscope.stats.profiles import TargetCost, has_outcome, performance_profile, ranks
from optiscope.stats.study_table import StudyTables

__all__ = ["panels_of_study"]


def panels_of_study(
    tables: StudyTables, costs: Sequence[TargetCost], looks: Mapping[str, Look]
) -> list[FigureGroup]:
    """Groups of figures over all problems; none for a single problem or algorithm."""
    if len(tables.problems) < 2 or len(looks) < 2:
        return []
    groups = []
    table: dict[str, dict[str, float]] = {}
    for cost in costs:
        table.setdefault(cost.problem, {})[cost.algorithm] = cost.median_epochs
    missing = ""
    unrun = [p for p in table if any(not has_outcome(tables, p, label) for label in looks)]
    table = {
        p: {label: c.get(label, math.inf) for label in looks}
        for p, c in table.items()
        if p not in unrun
    }
    lines = tuple(Key.of(look) for look in looks.values())
    if table:
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
        groups.append(FigureGroup("all-profile", "profile", "Profile", note, (panel,), lines))
    elif unrun:
        missing = "There is no profile: on every problem an algorithm has not run yet. "
    found = ranks(tables, list(looks), generator=np.random.default_rng(0))
    if found:
        keys = tuple(Key.of(look, line=False) for look in looks.values())
        panel = Panel(
            name="all-ranks",
            draw=partial(draw_ranks, ranks=found, looks=looks),
            description="mean rank of each algorithm over problems and seeds",
            height=rows_height(len(found)),
            left=label_width([in_lines(r.algorithm) for r in found]),
            keys=keys,
        )
        note = missing + (
            "Rank by final value with each seed, mean over seeds and problems; failed runs come "
            "last. Thick: middle 95 % of resampled seeds, too narrow with few seeds; thin: range "
            "when each problem is left out in turn."
        )
        groups.append(FigureGroup("all-ranks", "ranks", "Ranks", note, (panel,), keys))
    return groups
