"""Result against tuning budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from optiscope.records import higher_is_better
from optiscope.report.appearance import Look
from optiscope.report.axis_scale import set_linear
from optiscope.report.draw_sensitivity import SpanOfResults
from optiscope.report.number_text import axis_name

__all__ = ["draw_budget"]


def draw_budget(
    axes: Axes,
    curves: Mapping[str, Sequence[float]],
    looks: Mapping[str, Look],
    metric: str,
    span: SpanOfResults | None,
) -> None:
    """Expected best result of n trials against n, by label; beyond ``span`` the lines leave."""
    split, _, name = metric.partition("_")
    scale = 100.0 if name == "accuracy" else 1.0
    for label, expected in curves.items():
        look = looks[label]
        (line,) = axes.plot(
            np.arange(1, len(expected) + 1),
            scale * np.array(expected),
            color=look.colour,
            linestyle=look.linestyle,
            marker=look.marker,
            markersize=look.size,
            markevery=max(1, len(expected) // 6),
            markeredgecolor="white",
            markeredgewidth=0.5,
        )
        line.set_gid(f"{look.group}-budget")
    if span is not None:
        bottom, top = axes.get_ylim()
        if higher_is_better(name):
            axes.set_ylim(bottom=max(bottom, scale * span[0]))
        else:
            axes.set_ylim(top=min(top, scale * span[1]))
    axes.set_title("Expected best against budget")
    axes.set_xlabel("tuning budget (trials)")
    axes.set_ylabel(axis_name(split, name))
    set_linear(axes, "x", integer=True)
