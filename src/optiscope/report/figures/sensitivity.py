"""Result against one hyperparameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from optiscope.records import higher_is_better
from optiscope.report.appearance import INK, SHADE, Look
from optiscope.report.axis_scale import set_linear, set_log
from optiscope.report.content import leading_sensitivities
from optiscope.report.figures.panel import FigureGroup, Panel, file_name, shortened
from optiscope.report.legend import CHOSEN, FAILED_REGION, FAILED_TRIAL, PRUNED_TRIAL
from optiscope.report.number_text import axis_name
from optiscope.stats.sensitivity import (
    Sensitivity,
    Tried,
)
from optiscope.stats.study_table import PRUNED, StudyTables

__all__ = ["SpanOfResults", "draw_sensitivity", "sensitivity_panels", "span_of_results"]


SpanOfResults = tuple[float, float]
"""Limits of the result axis, shared by the panels of one problem."""


def sensitivity_panels(
    tables: StudyTables,
    problem: str,
    points: Mapping[str, Sequence[Tried]],
    looks: Mapping[str, Look],
) -> FigureGroup | None:
    """Result against the leading hyperparameter, a panel per tuned algorithm."""
    slug = file_name(problem)
    found = leading_sensitivities(tables, points, looks)
    if not found:
        return None
    span = span_of_results([c for _, c in found])
    failed = any(not math.isfinite(r) for _, c in found for r in c.results)
    region = any(c.failed_below is not None or c.failed_above is not None for _, c in found)
    pruned = any(PRUNED in p.statuses for of_label in points.values() for p in of_label)
    trial = PRUNED_TRIAL if pruned else FAILED_TRIAL
    keys = (CHOSEN,) + (trial,) * failed + (FAILED_REGION,) * region
    panels = tuple(
        Panel(
            name=f"{slug}-sensitivity-{file_name(look.label)}",
            draw=partial(draw_sensitivity, curve=c, look=look, span=span),
            description=f"result against {c.name} of {look.label} on {problem}",
            keys=keys,
            algorithm=look.number,
        )
        for look, c in found
    )
    note = (
        "One point per trial of the tuning, mean over its tuning seeds; results beyond the axis "
        "stand at its edge. The axis spans the search space."
    )
    return FigureGroup(f"{slug}-sensitivity", "sensitivity", "Sensitivity", note, panels, keys)


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
            color=look.color,
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
