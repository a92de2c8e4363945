"""Learning curves: mean and range over seeds, failed runs one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from optiscope.report.appearance import Look
from optiscope.report.axis_scale import set_linear, set_log
from optiscope.report.legend import Key
from optiscope.report.number_text import axis_name
from optiscope.stats.curves import Curve
from optiscope.stats.published import PublishedCurve

__all__ = ["SKIPPED", "draw_curves", "metric_limits", "wants_log"]

SKIPPED: Final = 0.1
"""Share of the epochs at the beginning to which the axis does not stretch."""

_DRAWN_EPOCHS: Final = 160
"""Longer curves are drawn at this many of their epochs, evenly chosen."""

Array = NDArray[np.float64]


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
    for position, (label, curve) in enumerate(curves.items()):
        _draw(axes, curve, looks[label], scale, position, len(curves))
    horizon = max((float(c.epochs[-1]) for c in curves.values() if len(c.epochs)), default=0.0)
    for key, of_source in published:
        _draw_published(axes, of_source, key, scale)
    for key, value in goals:
        axes.axhline(
            scale * value, color=key.colour, linestyle=key.linestyle, linewidth=1.2, zorder=2.5
        )
    beside = [_within(c, horizon) for _, c in published] + [np.array([v]) for _, v in goals]
    limits = metric_limits(list(curves.values()), scale, log=log, beside=beside)
    log = log and limits is not None and limits[0] > 0
    if limits is not None and log:
        set_log(axes, "y", *limits)
    elif limits is not None:
        axes.set_ylim(limits)
    for label, curve in curves.items():
        _mark_failures(axes, curve, looks[label], scale)
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
            color=look.colour,
            alpha=0.16,
            linewidth=0,
            zorder=1,
        )
        band.set_gid(f"{look.group}-band")
    every = max(1, len(epochs) // 6)
    (line,) = axes.plot(
        epochs,
        mean,
        color=look.colour,
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
        color=key.colour,
        linestyle=key.linestyle,
        linewidth=1.2,
        zorder=2.5,
    )
    if np.isfinite(curve.low).all():
        axes.fill_between(
            curve.epochs[keep],
            scale * curve.low[keep],
            scale * curve.high[keep],
            color=key.colour,
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
            color=look.colour,
            linestyle=look.linestyle,
            linewidth=0.8,
            zorder=2,
        )
        line.set_gid(f"{look.group}-failed")
        end = scale * float(run.values[-1]) if len(run.values) else top
        (cross,) = axes.plot(
            [run.last_epoch],
            [min(max(end, bottom), top)],
            color=look.colour,
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
