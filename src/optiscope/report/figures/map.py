"""Result in the plane of two hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes

from optiscope.records import higher_is_better
from optiscope.report.appearance import INK, Look
from optiscope.report.axis_scale import set_linear, set_log
from optiscope.report.figures.panel import FigureGroup, Panel, file_name, shortened
from optiscope.report.legend import FAILED_TRIAL
from optiscope.report.number_text import axis_name
from optiscope.stats.sensitivity import (
    Tried,
    numeric_names,
    selection_metric,
)
from optiscope.stats.study_table import StudyTables

__all__ = ["draw_map", "map_panels"]


_AXES: Final[tuple[Literal["x", "y"], ...]] = ("x", "y")


def map_panels(
    tables: StudyTables,
    problem: str,
    points: Mapping[str, Sequence[Tried]],
    looks: Mapping[str, Look],
) -> FigureGroup | None:
    """Result in the plane of two hyperparameters, a panel per algorithm that tunes two."""
    slug = file_name(problem)
    panels = []
    metric = selection_metric(tables)
    for label, look in looks.items():
        names = numeric_names(tables.algorithm(label).space)[:2]
        mine = [
            p
            for p in points[label]
            if len(names) == 2 and all(n in p.hyperparameters for n in names)
        ]
        if not mine:
            continue
        panels.append(
            Panel(
                name=f"{slug}-map-{file_name(label)}",
                draw=partial(
                    draw_map,
                    points=mine,
                    names=(names[0], names[1]),
                    metric=metric,
                    look=look,
                ),
                description=f"result against {names[0]} and {names[1]} of {label} on {problem}",
                left=0.75,
                right=0.62,
                keys=(FAILED_TRIAL,),
                algorithm=look.number,
            )
        )
    if not panels:
        return None
    note = "One point per trial, its result as color; the ring marks the chosen one."
    keys = (FAILED_TRIAL,)
    return FigureGroup(
        f"{slug}-map", "map", "Two hyperparameters at once", note, tuple(panels), keys
    )


def draw_map(
    axes: Axes, points: Sequence[Tried], names: tuple[str, str], metric: str, look: Look
) -> None:
    """Every trial in the plane of two hyperparameters, its result as color, failures crossed."""
    split, _, kind = metric.partition("_")
    scale = 100.0 if kind == "accuracy" else 1.0
    places = np.array([[float(p.hyperparameters[n]) for n in names] for p in points])
    values = scale * np.array([p.value for p in points])
    finite = np.isfinite(values)
    for column, (name, axis) in enumerate(zip(names, _AXES, strict=True)):
        low, high = float(places[:, column].min()), float(places[:, column].max())
        log = low > 0 and high / low > 30
        if log:
            set_log(axes, axis, low / (high / low) ** 0.05, high * (high / low) ** 0.05)
        else:
            set_linear(axes, axis)
        words = ("learning rate" if name == "lr" else name) + (", log scale" if log else "")
        axes.set(**{f"{axis}label": words})
    if finite.any():
        ordered = values[finite]
        worst = np.quantile(ordered, 0.25 if higher_is_better(kind) else 0.75)
        limits = (worst, ordered.max()) if higher_is_better(kind) else (ordered.min(), worst)
        drawn = axes.scatter(
            places[finite, 0],
            places[finite, 1],
            c=values[finite],
            cmap="viridis" if higher_is_better(kind) else "viridis_r",
            vmin=limits[0],
            vmax=limits[1],
            s=34,
            edgecolors=INK,
            linewidths=0.4,
            zorder=3,
        )
        figure = axes.get_figure(root=True)
        if figure is not None:
            bar = figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.03, aspect=30)
            bar.set_label(axis_name(split, kind))
    axes.scatter(
        places[~finite, 0], places[~finite, 1], color="#a03020", marker="x", s=30, zorder=3
    )
    chosen = [place for place, point in zip(places, points, strict=True) if point.chosen]
    for x, y in chosen:
        axes.scatter(x, y, s=130, facecolors="none", edgecolors=INK, linewidths=1.4, zorder=4)
    axes.set_title(shortened(look.label))
