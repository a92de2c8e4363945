"""Time per training step relative to the baseline, which stands at 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from optiscope.report.appearance import FAINT, INK, Look
from optiscope.report.figures.panel import (
    LINE,
    FigureGroup,
    Panel,
    file_name,
    in_lines,
    label_width,
    rows_height,
)
from optiscope.report.legend import Key
from optiscope.stats.study_table import StudyTables
from optiscope.stats.summary import Cost

__all__ = ["RelativeTime", "draw_time", "step_times"]


@dataclass(frozen=True)
class RelativeTime:
    """Seconds per step of one algorithm over those of the reference.

    Attributes:
        label: of the algorithm.
        middle: typical ratio (the median of the repetitions).
        low: lower end of its spread or interval.
        high: upper end.
    """

    label: str
    middle: float
    low: float
    high: float


def step_times(
    tables: StudyTables, problem: str, costs: Sequence[Cost], looks: Mapping[str, Look]
) -> FigureGroup | None:
    """Time per step relative to the baseline, all algorithms in one panel."""
    slug = file_name(problem)
    reference = str(tables.declaration["reference"])
    times = [
        RelativeTime(
            c.algorithm, float(np.median(c.ratios)), float(min(c.ratios)), float(max(c.ratios))
        )
        for c in costs
        if c.ratios
    ]
    if not times:
        return None
    keys = tuple(Key.of(looks[t.label], area=True) for t in times)
    panel = Panel(
        name=f"{slug}-time",
        draw=partial(draw_time, times=times, looks=looks, reference=reference),
        description=f"time per training step relative to {reference} on {problem}",
        height=rows_height(len(times)),
        left=label_width([in_lines(t.label) for t in times]),
        keys=keys,
    )
    note = (
        f"Bar: median over seeds of the ratio to {reference} with the same seed; line: from the "
        "lowest to the highest. Without evaluation. The runs shared a machine and were not "
        "interleaved: optiscope time measures speed with less disturbance."
    )
    return FigureGroup(f"{slug}-time", "time", "Time", note, (panel,), keys)


def draw_time(
    axes: Axes, times: Sequence[RelativeTime], looks: Mapping[str, Look], reference: str
) -> None:
    """One bar per algorithm with its spread, and a line at the reference's 1."""
    for row, time in enumerate(times):
        look = looks[time.label]
        (bar,) = axes.barh(row, time.middle, height=0.62, color=look.color, alpha=0.85)
        bar.set_gid(f"{look.group}-bar")
        (line,) = axes.plot([time.low, time.high], [row, row], color=INK, linewidth=1.4)
        line.set_gid(f"{look.group}-spread")
        note = axes.annotate(
            f"× {time.middle:.2f}",
            (time.high, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
        note.set_gid(f"{look.group}-note")
    axes.axvline(1.0, color=FAINT, linewidth=1.0, linestyle=(0, (4, 2)))
    axes.set_yticks(range(len(times)), [in_lines(t.label) for t in times])
    axes.set_ylim(len(times) - 0.4, -0.6)
    axes.set_xlim(0, 1.45 * float(np.max([t.high for t in times])))
    axes.grid(axis="y", visible=False)
    axes.set_title("Time per training step")
    unit = reference if len(reference) <= LINE else "the reference"
    axes.set_xlabel(f"wall time per step (× {unit})", loc="right")
