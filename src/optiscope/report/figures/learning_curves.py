"""Learning curves: mean and range over seeds, failed runs one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from optiscope.records import higher_is_better
from optiscope.report.appearance import DASHES, INK, Look
from optiscope.report.axis_scale import set_linear, set_log
from optiscope.report.figures.panel import (
    FigureGroup,
    Panel,
    file_name,
)
from optiscope.report.legend import STOPPED_RUN, Key
from optiscope.report.number_text import axis_name, point_text
from optiscope.stats.curves import Curve, curve, measured
from optiscope.stats.goals import Goal, goals_of
from optiscope.stats.published import PublishedCurve, PublishedSetting, published_settings
from optiscope.stats.study_table import StudyTables

__all__ = ["SKIPPED", "draw_curves", "learning_curves", "metric_limits", "wants_log"]


SKIPPED: Final = 0.1
"""Share of the epochs at the beginning to which the axis does not stretch."""


_DRAWN_EPOCHS: Final = 160
"""Longer curves are drawn at this many of their epochs, evenly chosen."""


Array = NDArray[np.float64]


SHOWN_PUBLISHED: Final = 6
"""Published settings drawn beside a study's own; more cannot be told apart."""


PUBLISHED_GREYS: Final = ("#4d4d4d", "#999999")


SPLITS: Final = ("train", "valid", "test")
"""Splits that have learning curves, in the order of their panels."""


def learning_curves(
    tables: StudyTables, problem: str, looks: Mapping[str, Look]
) -> FigureGroup | None:
    """Every metric of every split against epochs, a panel each; None where nothing was measured."""
    slug = file_name(problem)
    panels = []
    keys = [Key.of(look) for look in looks.values()]
    settings, left_out = _shown_settings(tables, problem)
    beside = [(_published_key(setting, n), setting) for n, setting in enumerate(settings)]
    keys += [key for key, _ in beside]
    goals = [(_goal_key(goal), goal.value) for goal in goals_of(tables) if goal.problem == problem]
    keys += [key for key, _ in goals]
    any_failed = False
    names = dict.fromkeys(name for split, name in measured(tables, problem) if split in SPLITS)
    order = sorted(names, key=lambda name: (name != "loss", name != "accuracy", name))
    for split, name in ((split, name) for name in order for split in SPLITS):
        found = {label: curve(tables, problem, label, split, name) for label in looks}
        curves = {label: c for label, c in found.items() if c is not None}
        if not curves:
            continue
        published = [(key, c) for key, s in beside if (c := s.curve(split, name)) is not None]
        failed = any(c.failed for c in curves.values())
        any_failed |= failed
        panels.append(
            Panel(
                name=f"{slug}-{split}-{name}",
                draw=partial(
                    draw_curves,
                    curves=curves,
                    looks=looks,
                    split=split,
                    name=name,
                    published=published,
                    goals=goals if (split, name) == ("test", tables.metric(problem)) else (),
                ),
                description=f"{split} {name} of each algorithm against epochs on {problem}",
                keys=(*keys, STOPPED_RUN) if failed else tuple(keys),
            )
        )
    if not panels:
        return None
    seeds = len(tables.declaration["seeds"])
    note = (
        f"Line: mean over the seeds that reached their end (of {seeds}); "
        "band: from the lowest to the highest of them. "
        if seeds > 1
        else "One seed: no spread is known. "
    )
    note += "The value axis is fitted to what follows the first tenth of the epochs."
    if any(tables.algorithm(label).early_stopping for label in looks):
        note += " A run that stopped early keeps its last value."
    if settings:
        note += (
            " Grey: published elsewhere, with the range or standard deviation of its source; its "
            "splits differ, so it enters no claim."
        )
    if left_out:
        note += f" {left_out} more published settings, worse in validation, are not drawn."
    if any_failed:
        note += " A run that failed is drawn by itself as a thin line that ends in a cross."
    return FigureGroup(
        f"{slug}-curves",
        "curves",
        "Learning curves",
        note,
        tuple(panels),
        (*keys, STOPPED_RUN) if any_failed else tuple(keys),
    )


def _shown_settings(tables: StudyTables, problem: str) -> tuple[list[PublishedSetting], int]:
    """Published settings to draw, and the number left out: those that did worse in validation."""
    found = published_settings(tables.published, problem)
    if len(found) <= SHOWN_PUBLISHED:
        return found, 0
    metric = tables.metric(problem)
    sign = -1 if higher_is_better(metric) else 1

    def place(setting: PublishedSetting) -> float:
        value = sign * setting.final(f"valid_{metric}")
        return math.inf if math.isnan(value) else value

    return sorted(found, key=place)[:SHOWN_PUBLISHED], len(found) - SHOWN_PUBLISHED


def _published_key(setting: PublishedSetting, number: int) -> Key:
    """Legend entry of a published setting: grey, told apart by its dashes."""
    point = f" ({point_text(setting.hyperparameters)})" if setting.hyperparameters else ""
    label = f"{setting.optimizer}{point}, published"
    return Key(label, PUBLISHED_GREYS[number % 2], DASHES[(number // 2 + 1) % len(DASHES)])


def _goal_key(goal: Goal) -> Key:
    """Legend entry of a goal: a dotted line."""
    return Key(f"goal: {goal.meaning}", INK, dashes=(1.0, 1.6))


def draw_curves(
    axes: Axes,
    curves: Mapping[str, Curve],
    looks: Mapping[str, Look],
    split: str,
    name: str,
    published: Sequence[tuple[Key, PublishedCurve]] = (),
    goals: Sequence[tuple[Key, float]] = (),
) -> None:
    """One metric of all algorithms against epochs; published curves in grey, goals as lines."""
    scale = 100.0 if name == "accuracy" else 1.0
    log = name == "loss" and wants_log([c.mean for c in curves.values()])
    for position, (label, of_label) in enumerate(curves.items()):
        _draw(axes, of_label, looks[label], scale, position, len(curves))
    horizon = max((float(c.epochs[-1]) for c in curves.values() if len(c.epochs)), default=0.0)
    for key, of_source in published:
        _draw_published(axes, of_source, key, scale)
    for key, value in goals:
        axes.axhline(
            scale * value, color=key.color, linestyle=key.linestyle, linewidth=1.2, zorder=2.5
        )
    beside = [_within(c, horizon) for _, c in published] + [np.array([v]) for _, v in goals]
    limits = metric_limits(list(curves.values()), scale, log=log, beside=beside)
    log = log and limits is not None and limits[0] > 0
    if limits is not None and log:
        set_log(axes, "y", *limits)
    elif limits is not None:
        axes.set_ylim(limits)
    for label, of_label in curves.items():
        _mark_failures(axes, of_label, looks[label], scale)
    axes.set_title(_title(split, name))
    axes.set_xlabel("epoch")
    axes.set_ylabel(axis_name(split, name, log=log))
    set_linear(axes, "x", integer=True)
    if published and horizon > 0:
        axes.set_xlim(-0.03 * horizon, 1.03 * horizon)


def wants_log(values: Sequence[Array]) -> bool:
    """Whether positive values span so much that a linear axis would hide most of them."""
    whole = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.array([])
    return bool(len(whole) and whole.min() > 0 and whole.max() / whole.min() > 10)


def metric_limits(
    curves: Sequence[Curve], scale: float, *, log: bool, beside: Sequence[Array] = ()
) -> tuple[float, float] | None:
    """Limits of what runs that reached their end measured after the first tenth of the epochs.

    So neither the steep beginning nor one failure far off flattens what is to be compared. Where
    no run reached its end, those that failed set the limits; None where nothing was measured.
    Values ``beside`` are inside the limits too.
    """
    kept = [c.epochs >= SKIPPED * c.epochs[-1] for c in curves if len(c.epochs)]
    whole = [c for c in curves if len(c.epochs)]
    low = [scale * c.low[k] for c, k in zip(whole, kept, strict=True)]
    high = [scale * c.high[k] for c, k in zip(whole, kept, strict=True)]
    if not low:
        low = high = [scale * run.values for c in curves for run in c.failed if len(run.values)]
    if not low:
        return None
    more = [scale * values for values in beside]
    bottom = float(np.concatenate([*low, *more]).min())
    top = float(np.concatenate([*high, *more]).max())
    if log and bottom > 0:
        ratio = max((top / bottom) ** 0.05, 1.02)
        return bottom / ratio, top * ratio
    margin = 0.05 * (top - bottom) or 0.05 * abs(top) or 1.0
    return bottom - margin, top + margin


def _draw(axes: Axes, curve: Curve, look: Look, scale: float, position: int, total: int) -> None:
    keep = _thinned(len(curve.epochs))
    epochs, mean = curve.epochs[keep], scale * curve.mean[keep]
    if curve.complete > 1:
        band = axes.fill_between(
            epochs,
            scale * curve.low[keep],
            scale * curve.high[keep],
            color=look.color,
            alpha=0.16,
            linewidth=0,
            zorder=1,
        )
        band.set_gid(f"{look.group}-band")
    every = max(1, len(epochs) // 6)
    (line,) = axes.plot(
        epochs,
        mean,
        color=look.color,
        linestyle=look.linestyle,
        marker=look.marker,
        markersize=look.size,
        markevery=(position * every // max(1, total), every),
        markeredgecolor="white",
        markeredgewidth=0.5,
        zorder=3,
    )
    line.set_gid(f"{look.group}-mean")


def _within(curve: PublishedCurve, horizon: float) -> Array:
    """Published means after the first tenth of the study's epochs, up to their end."""
    kept = (curve.epochs >= SKIPPED * horizon) & (curve.epochs <= horizon)
    return curve.mean[kept]


def _draw_published(axes: Axes, curve: PublishedCurve, key: Key, scale: float) -> None:
    keep = _thinned(len(curve.epochs))
    axes.plot(
        curve.epochs[keep],
        scale * curve.mean[keep],
        color=key.color,
        linestyle=key.linestyle,
        linewidth=1.2,
        zorder=2.5,
    )
    if np.isfinite(curve.low).all():
        axes.fill_between(
            curve.epochs[keep],
            scale * curve.low[keep],
            scale * curve.high[keep],
            color=key.color,
            alpha=0.12,
            linewidth=0,
            zorder=0.5,
        )


def _mark_failures(axes: Axes, curve: Curve, look: Look, scale: float) -> None:
    bottom, top = axes.get_ylim()
    for run in curve.failed:
        (line,) = axes.plot(
            run.epochs,
            scale * run.values,
            color=look.color,
            linestyle=look.linestyle,
            linewidth=0.8,
            zorder=2,
        )
        line.set_gid(f"{look.group}-failed")
        end = scale * float(run.values[-1]) if len(run.values) else top
        (cross,) = axes.plot(
            [run.last_epoch],
            [min(max(end, bottom), top)],
            color=look.color,
            marker="x",
            markersize=7,
            markeredgewidth=2,
            linestyle="none",
            clip_on=False,
            zorder=4,
        )
        cross.set_gid(f"{look.group}-cross")
    axes.set_ylim(bottom, top)


def _thinned(length: int) -> NDArray[np.int64]:
    if length <= _DRAWN_EPOCHS:
        return np.arange(length)
    return np.unique(np.linspace(0, length - 1, _DRAWN_EPOCHS).round().astype(np.int64))


def _title(split: str, name: str) -> str:
    words = {"train": "Training", "valid": "Validation", "test": "Test"}
    return f"{words.get(split, split)} {name}"
