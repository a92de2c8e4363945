"""Result against a hyperparameter, and against two at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes

from optiscope.records import higher_is_better
from optiscope.report.appearance import INK, SHADE, Look
from optiscope.report.axis_scale import set_linear, set_log
from optiscope.report.number_text import axis_name
from optiscope.report.panels import shortened
from optiscope.stats.sensitivity import Sensitivity, Tried

__all__ = ["SpanOfResults", "draw_map", "draw_sensitivity", "span_of_results"]

_AXES: Final[tuple[Literal["x", "y"], ...]] = ("x", "y")

SpanOfResults = tuple[float, float]
"""Limits of the result axis, shared by the panels of one problem."""


def span_of_results(curves: Sequence[Sensitivity]) -> SpanOfResults | None:
    """Limits that show the better three quarters of all results of a problem, and its best."""
    whole = np.concatenate([np.array(c.results) for c in curves]) if curves else np.array([])
    whole = whole[np.isfinite(whole)]
    if not len(whole):
        return None
    if higher_is_better(curves[0].metric):
        low, high = float(whole.min()), float(whole.max())
    else:
        low = float(whole.min())
        high = max(float(np.quantile(whole, 0.75)), low + 0.5 * abs(low))
        high = min(float(whole.max()), 1.5 * high)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def draw_sensitivity(
    axes: Axes, curve: Sensitivity, look: Look, span: SpanOfResults | None
) -> None:
    """Every trial against one hyperparameter, with the region where all trials failed shaded."""
    split, _, metric = curve.metric.partition("_")
    scale = 100.0 if metric == "accuracy" else 1.0
    low, high = _limits(curve)
    if curve.log:
        set_log(axes, "x", low, high)
    else:
        set_linear(axes, "x")
        axes.set_xlim(low, high)
    _shade_failures(axes, curve, low, high)
    if span is not None:
        axes.set_ylim(scale * span[0], scale * span[1])
    else:
        axes.set_yticks([])
    worst = axes.get_ylim()[0 if higher_is_better(metric) else 1]
    shown = [_inside(scale * r, axes.get_ylim()) for r in curve.results]
    good = [(v, r) for v, r, y in zip(curve.values, shown, curve.results, strict=True) if y == y]
    if good:
        (line,) = axes.plot(
            *zip(*good, strict=True),
            color=look.colour,
            linewidth=1.0,
            marker=look.marker,
            markersize=look.size,
            markeredgecolor="white",
            markeredgewidth=0.5,
            clip_on=False,
            zorder=3,
        )
        line.set_gid(f"{look.group}-trials")
    failed = [v for v, r in zip(curve.values, curve.results, strict=True) if not math.isfinite(r)]
    (crosses,) = axes.plot(
        failed,
        [worst] * len(failed),
        color="#a03020",
        marker="x",
        markeredgewidth=1.6,
        linestyle="none",
        clip_on=False,
        zorder=4,
    )
    crosses.set_gid(f"{look.group}-failed")
    if curve.chosen is not None:
        axes.axvline(curve.chosen, color=INK, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2)
    axes.set_title(shortened(look.label))
    unit = ", log scale" if curve.log else ""
    name = "learning rate" if curve.name == "lr" else curve.name
    axes.set_xlabel(f"{name}{unit}")
    axes.set_ylabel(axis_name(split, metric))


def draw_map(
    axes: Axes, points: Sequence[Tried], names: tuple[str, str], metric: str, look: Look
) -> None:
    """Every trial in the plane of two hyperparameters, its result as colour, failures crossed."""
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


def _limits(curve: Sensitivity) -> tuple[float, float]:
    space = curve.space
    low = float(space.get("low", min(curve.values)))
    high = float(space.get("high", max(curve.values)))
    low, high = min(low, *curve.values), max(high, *curve.values)
    if curve.log:
        stretch = max((high / low) ** 0.03, 1.05)
        return low / stretch, high * stretch
    margin = 0.03 * (high - low) or 0.5
    return low - margin, high + margin


def _shade_failures(axes: Axes, curve: Sensitivity, low: float, high: float) -> None:
    values = np.array(curve.values)
    if curve.failed_above is not None:
        below = values[values < curve.failed_above]
        start = _between(float(below[-1]), curve.failed_above, curve.log) if len(below) else low
        axes.axvspan(start, high, color=SHADE, linewidth=0, zorder=0)
    if curve.failed_below is not None:
        above = values[values > curve.failed_below]
        axes.axvspan(
            low,
            _between(curve.failed_below, float(above[0]), curve.log),
            color=SHADE,
            linewidth=0,
            zorder=0,
        )


def _between(a: float, b: float, log: bool) -> float:
    return math.sqrt(a * b) if log else (a + b) / 2


def _inside(value: float, limits: tuple[float, float]) -> float:
    return value if not math.isfinite(value) else min(max(value, min(limits)), max(limits))
