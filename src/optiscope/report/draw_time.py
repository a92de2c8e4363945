"""Time per training step relative to the reference, which stands at 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from optiscope.report.appearance import FAINT, INK, Look
from optiscope.report.panels import LINE, in_lines

__all__ = ["RelativeTime", "draw_time"]


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


def draw_time(
    axes: Axes, times: Sequence[RelativeTime], looks: Mapping[str, Look], reference: str
) -> None:
    """One bar per algorithm with its spread, and a line at the reference's 1."""
    for row, time in enumerate(times):
        look = looks[time.label]
        (bar,) = axes.barh(row, time.middle, height=0.62, color=look.colour, alpha=0.85)
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
    axes.set_ylabel("algorithm")
