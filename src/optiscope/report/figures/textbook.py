"""Figures of the textbook difficulties: optimizers' paths over a landscape, and curves with theory.

Plain arrays come in and a Matplotlib figure goes out; nothing here trains or evaluates anything.

Index legend: T steps of a path, U and V points along the axes of a landscape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from optiscope.report.appearance import FAINT, INK, Look, looks
from optiscope.report.figure_style import figure_style
from optiscope.report.legend import Key

__all__ = ["Curve", "Ground", "Walk", "curve_figure", "draw_landscape", "landscape_figure"]

Array = NDArray[np.float64]

_GROUND: Final = LinearSegmentedColormap.from_list(
    "ground", ["#8fa3ad", "#b9c6cc", "#d9e0e3", "#edf0f1", "#f9fafa"]
)
"""Low ground is dark, high ground light, so that every path's color stands out."""

_LEVELS: Final = 22
_STEPS_WITH_DOTS: Final = 60
"""Longer paths are drawn without a dot at each step."""

_HIGHEST: Final = 100.0
"""Losses above this multiple of the highest first loss are off the scale."""


@dataclass(frozen=True)
class Ground:
    """A loss over two parameters.

    Attributes:
        u, v: values of the two parameters, [U] and [V].
        losses: at every (u, v), [V, U].
        names: of the two parameters.
        minima: their points, [M, 2]; empty where none is known.
        lines: labelled curves over it, each [P, 2].
        equal: whether both axes have one scale.
    """

    u: Array
    v: Array
    losses: Array
    names: tuple[str, str] = ("u", "v")
    minima: Sequence[tuple[float, float]] = ()
    lines: Mapping[str, Array] | None = None
    equal: bool = False


@dataclass(frozen=True)
class Walk:
    """Where an optimizer went: points [T + 1, 2] and the loss at each, [T + 1]."""

    points: Array
    losses: Array


@dataclass(frozen=True)
class Curve:
    """Values ``y`` at ``x``; theory is drawn as a thin dashed black line.

    Curves of one label look the same and have one entry in the legend.
    """

    label: str
    x: Array
    y: Array
    theory: bool = False


def landscape_figure(
    title: str, ground: Ground, walks: Mapping[str, Walk], *, reference: float | None = None
) -> Figure:
    """Paths over the landscape beside the loss along each of them; without paths, it alone.

    Args:
        title: says what to see.
        ground: the landscape.
        walks: by label, in the order of the legend; paths may leave the landscape.
        reference: a loss that is drawn as a dotted line, such as the lowest.
    """
    styles = looks(list(walks))
    with figure_style():
        figure = Figure(figsize=(8.4 if walks else 4.6, 4.1), layout="constrained")
        if walks:
            left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
            _draw_losses(right, walks, styles, reference)
        else:
            left = figure.subplots()
        draw_landscape(left, ground, walks, styles)
        keys = [Key(label, look.color, look.dashes) for label, look in styles.items()]
        keys += [Key(label, INK, (1.5, 1.5)) for label in ground.lines or {}]
        if len(ground.minima):
            keys.append(Key("minimum", INK, marker="*"))
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        _add_legend_below(figure, keys)
    return figure


def _add_legend_below(figure: Figure, keys: Sequence[Key]) -> None:
    if not keys:
        return
    longest = max(len(key.label) for key in keys)
    room = figure.get_figwidth() * 72 / (0.55 * 8.5 * longest + 42)
    figure.legend(
        handles=[key.handle() for key in keys],
        loc="outside lower left",
        ncols=max(1, min(len(keys), int(room))),
        handlelength=2.6,
        columnspacing=1.2,
    )


def draw_landscape(
    axes: Axes, ground: Ground, walks: Mapping[str, Walk], styles: Mapping[str, Look]
) -> None:
    """Shade the ground by the logarithm of its height above the lowest point, and draw paths."""
    height = _height(ground.losses)
    levels = np.linspace(float(height.min()), float(height.max()), _LEVELS)
    axes.contourf(ground.u, ground.v, height, levels=levels, cmap=_GROUND, zorder=0)
    axes.contour(
        ground.u,
        ground.v,
        height,
        levels=levels[1:-1:2],
        colors="white",
        linewidths=0.5,
        linestyles="solid",
        zorder=1,
    )
    for line in (ground.lines or {}).values():
        axes.plot(line[:, 0], line[:, 1], color=INK, linewidth=1.0, linestyle=(0, (1.5, 1.5)))
    for minimum in ground.minima:
        axes.plot(*minimum, marker="*", markersize=9, color=INK, markeredgecolor="white", zorder=6)
    for label, walk in walks.items():
        _draw_path(axes, walk, styles[label])
    axes.set_xlim(float(ground.u[0]), float(ground.u[-1]))
    axes.set_ylim(float(ground.v[0]), float(ground.v[-1]))
    axes.set_xlabel(ground.names[0])
    axes.set_ylabel(ground.names[1])
    axes.grid(False)
    if ground.equal:
        axes.set_aspect("equal")


def _height(losses: Array) -> Array:
    """Logarithm of the height above the lowest point, with a floor of 10⁻³ of its typical value."""
    above = losses - np.nanmin(losses)
    typical = float(np.nanmedian(above)) or 1.0
    height: Array = np.log10(np.clip(above, 0.0, 1e4 * typical) + 1e-3 * typical)
    return height


def _draw_path(axes: Axes, walk: Walk, look: Look) -> None:
    x, y = walk.points[:, 0], walk.points[:, 1]
    dots = len(x) <= _STEPS_WITH_DOTS
    axes.plot(x, y, color="white", linewidth=3.0, alpha=0.7, zorder=2)
    axes.plot(
        x,
        y,
        color=look.color,
        linestyle=look.linestyle,
        marker="." if dots else "",
        markersize=4.5,
        linewidth=1.4,
        zorder=4,
    )
    axes.plot(x[0], y[0], marker="o", markersize=6, color="white", markeredgecolor=INK, zorder=5)
    axes.plot(
        x[-1], y[-1], marker="o", markersize=6, color=look.color, markeredgecolor="white", zorder=7
    )


def _draw_losses(
    axes: Axes, walks: Mapping[str, Walk], styles: Mapping[str, Look], reference: float | None
) -> None:
    whole = np.concatenate([walk.losses for walk in walks.values()] or [np.ones(1)])
    highest = _HIGHEST * max((float(walk.losses[0]) for walk in walks.values()), default=1.0)
    low, high = float(whole.min()), min(float(whole.max()), highest)
    if low > 0 and high > 20 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=7))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(max(low / 2, 1e-8 * high), 2 * high)
    elif high < whole.max():
        axes.set_ylim(low - 0.05 * (high - low), high)
    for label, walk in walks.items():
        look = styles[label]
        axes.plot(walk.losses, color=look.color, linestyle=look.linestyle)
        axes.plot(len(walk.losses) - 1, walk.losses[-1], marker="o", color=look.color)
    if reference is not None:
        axes.axhline(reference, color=FAINT, linewidth=1.0, linestyle=(0, (1.5, 1.5)))
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def curve_figure(
    title: str,
    panels: Mapping[str, Sequence[Curve]],
    *,
    x: str,
    y: str,
    log: str = "y",
) -> Figure:
    """Measured curves and what theory says of them, one panel for each comparison.

    Args:
        title: says what to see.
        panels: curves by the panel's heading, which may be empty.
        x, y: labels of the axes.
        log: the axes with a logarithmic scale: ``""``, ``"x"``, ``"y"`` or ``"xy"``.
    """
    every = [curve for curves in panels.values() for curve in curves]
    styles = looks(list(dict.fromkeys(c.label for c in every if not c.theory)))
    with figure_style():
        figure = Figure(figsize=(4.2 * max(len(panels), 1.4), 3.7), layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (heading, curves) in zip(row, panels.items(), strict=True):
            _draw_curves(axes, heading, curves, styles, log)
            axes.set_xlabel(x)
        row[0].set_ylabel(y)
        keys = [Key(label, look.color, look.dashes) for label, look in styles.items()]
        theories = dict.fromkeys(c.label for c in every if c.theory)
        keys += [Key(label, INK, (3, 2)) for label in theories]
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        _add_legend_below(figure, keys)
    return figure


def _draw_curves(
    axes: Axes, heading: str, curves: Sequence[Curve], styles: Mapping[str, Look], log: str
) -> None:
    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    for curve in curves:
        if curve.theory:
            axes.plot(curve.x, curve.y, color=INK, linewidth=1.0, linestyle=(0, (3, 2)), zorder=4)
        else:
            look = styles[curve.label]
            axes.plot(curve.x, curve.y, color=look.color, linestyle=look.linestyle)
    if heading:
        axes.set_title(heading)
