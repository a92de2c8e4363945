"""Final values, one point per seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from optiscope.report.appearance import INK, Look
from optiscope.report.axis_scale import set_linear
from optiscope.report.figures.panel import (
    FigureGroup,
    Panel,
    file_name,
    in_lines,
    label_width,
    rows_height,
)
from optiscope.report.legend import MEAN, Key
from optiscope.report.number_text import axis_name
from optiscope.stats.summary import Result

__all__ = ["draw_final", "final_values", "row_label"]


def final_values(
    problem: str, results: Sequence[Result], looks: Mapping[str, Look]
) -> FigureGroup | None:
    """Final values of every seed, all algorithms in one panel."""
    slug = file_name(problem)
    if not any(r.values for r in results):
        return None
    keys = (*(Key.of(look, line=False) for look in looks.values()), MEAN)
    panel = Panel(
        name=f"{slug}-final",
        draw=partial(draw_final, results=results, looks=looks),
        description=f"final test {results[0].metric} of every seed on {problem}",
        height=rows_height(len(results)),
        left=label_width([row_label(r) for r in results]),
        keys=keys,
    )
    note = "One point per seed; the bar is their mean. Failed runs have no final value."
    return FigureGroup(f"{slug}-final", "final", "Final values", note, (panel,), keys)


def draw_final(axes: Axes, results: Sequence[Result], looks: Mapping[str, Look]) -> None:
    """One row per algorithm: every seed's final value, the mean as a bar, failures in words."""
    metric = results[0].metric
    scale = 100.0 if metric == "accuracy" else 1.0
    for row, result in enumerate(results):
        look = looks[result.algorithm]
        values = scale * np.array(list(result.values.values()))
        spread = 0.22 * np.linspace(-1, 1, len(values)) if len(values) > 1 else np.zeros(1)
        (points,) = axes.plot(
            values,
            row + spread[: len(values)],
            color=look.color,
            marker=look.marker,
            linestyle="none",
            markeredgecolor="white",
            markeredgewidth=0.5,
            markersize=1.15 * look.size,
        )
        points.set_gid(f"{look.group}-seeds")
        if len(values):
            (bar,) = axes.plot([scale * result.mean] * 2, [row - 0.36, row + 0.36], color=INK)
            bar.set_gid(f"{look.group}-mean")
    axes.set_yticks(range(len(results)), [row_label(r) for r in results])
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    set_linear(axes, "x")
    axes.set_title(f"Final test {metric}")
    axes.set_xlabel(axis_name("test", metric), loc="right")


def row_label(result: Result) -> str:
    """The algorithm, and below it how many of its runs failed how."""
    words = ",\n".join(f"{count} {status}" for status, count in result.failed.items())
    label = in_lines(result.algorithm)
    return f"{label}\n{words}" if words else label
