"""Figures of loss landscapes: lines, paths, planes as contours and as surfaces, basins.

Plain arrays come in and a Matplotlib figure goes out; nothing here evaluates a loss. Colors are
cividis, which readers with any common color blindness see as rising brightness.

Index legend: P points, T points of a trajectory, U and V points along a plane's axes, K solutions.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from optiscope.report.appearance import FAINT, INK, PALETTE
from optiscope.report.figure_style import figure_style

__all__ = [
    "Curves",
    "LineData",
    "MatrixData",
    "PathData",
    "PlaneData",
    "clipped",
    "contour_figure",
    "line_figure",
    "matrix_figure",
    "path_figure",
    "surface_figure",
]

Array = NDArray[np.float64]

GROUND: Final = LinearSegmentedColormap.from_list(
    "landscape", mpl.colormaps["cividis"](np.linspace(0.08, 1.0, 256))
)
HOLE: Final = "#d9d9d9"
LEVELS: Final = 18
TOP_SHARE: Final = 0.9
"""Losses above this quantile of a plane, and far above its median, are cut off in the figure."""

CAPTION_WIDTH: Final = 17.5
"""Letters to an inch of a caption of 7.5 points."""


@dataclass(frozen=True)
class Curves:
    """Loss [P], and accuracy [P] from 0 to 1 or None, along a line."""

    losses: Array
    accuracies: Array | None = None


@dataclass(frozen=True)
class LineData:
    """Curves by name (train, test) over coefficients [P]; solutions at 0 and 1."""

    title: str
    coefficients: Array
    curves: Mapping[str, Curves]
    caption: str = ""


@dataclass(frozen=True)
class PathData:
    """Losses along a path, positions from 0 to 1, and along the straight line beside it."""

    title: str
    positions: Array
    losses: Array
    line_positions: Array
    line_losses: Array
    barrier: float
    line_barrier: float
    where: float
    caption: str = ""


@dataclass(frozen=True)
class PlaneData:
    """Losses [V, U] over x [U] and y [V]; what is not finite is a hole.

    Attributes:
        names: of the two axes.
        marks: points by name.
        path: a trajectory [T, 2]; empty where there is none.
        path_losses: losses along it [T], for the surface; empty where unknown.
        equal: whether both axes have one scale.
    """

    title: str
    x: Array
    y: Array
    losses: Array
    names: tuple[str, str] = ("direction 1", "direction 2")
    marks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    path: Array = field(default_factory=lambda: np.empty((0, 2)))
    path_losses: Array = field(default_factory=lambda: np.empty(0))
    equal: bool = False
    caption: str = ""


@dataclass(frozen=True)
class MatrixData:
    """Barriers [K, K] between named solutions, and the edges of the spanning tree."""

    title: str
    names: Sequence[str]
    barriers: Array
    tree: Sequence[tuple[int, int]]
    tolerance: float
    caption: str = ""


def line_figure(data: LineData) -> Figure:
    """Loss above, accuracy below, against the coefficient; the solutions are dotted lines."""
    scored = any(curve.accuracies is not None for curve in data.curves.values())
    with figure_style():
        figure = Figure(figsize=(5.6, 4.9 if scored else 3.5), layout="constrained")
        rows = figure.subplots(2 if scored else 1, 1, sharex=True, squeeze=False)[:, 0]
        for (name, curve), color, dash in zip(
            data.curves.items(), PALETTE, ("solid", (0, (5, 2)), (0, (1.5, 1.5))), strict=False
        ):
            rows[0].plot(data.coefficients, curve.losses, color=color, linestyle=dash, label=name)
            if curve.accuracies is not None:
                rows[1].plot(data.coefficients, 100 * curve.accuracies, color=color, linestyle=dash)
        finite = [c.losses[np.isfinite(c.losses) & (c.losses > 0)] for c in data.curves.values()]
        _loss_axis(rows[0], np.concatenate(finite))
        if scored:
            rows[1].set_ylabel("accuracy (%)")
        for axes in rows:
            for solution in (0.0, 1.0):
                axes.axvline(solution, color=FAINT, linewidth=1.0, linestyle=(0, (1.5, 1.5)))
        rows[-1].set_xlabel("coefficient c of (1 - c) a + c b")
        if len(data.curves) > 1:
            rows[0].legend(loc="best")
        _finish(figure, data.title, data.caption)
    return figure


def path_figure(data: PathData) -> Figure:
    """Loss along the path and along the straight line, against the share of the length."""
    with figure_style():
        figure = Figure(figsize=(5.6, 3.7), layout="constrained")
        axes = figure.subplots()
        axes.plot(
            data.line_positions,
            data.line_losses,
            color=PALETTE[1],
            linestyle=(0, (5, 2)),
            label=f"straight line, barrier {data.line_barrier:.3g}",
        )
        axes.plot(
            data.positions,
            data.losses,
            color=PALETTE[0],
            label=f"path, barrier {data.barrier:.3g}",
        )
        finite = np.isfinite(data.losses)
        if finite.any():
            top = int(np.argmin(np.abs(data.positions - data.where)))
            if np.isfinite(data.losses[top]):
                axes.plot(data.positions[top], data.losses[top], "^", color=PALETTE[0])
        every = np.concatenate([data.losses, data.line_losses])
        _loss_axis(axes, every[np.isfinite(every)])
        axes.set_xlabel("share of the length")
        axes.legend(loc="best")
        _finish(figure, data.title, data.caption)
    return figure


def contour_figure(data: PlaneData) -> Figure:
    """The plane from above: brightness is the loss, holes are hatched, the path is drawn."""
    with figure_style():
        tall = 4.4 * float(np.ptp(data.y) / np.ptp(data.x)) if data.equal else 3.9
        figure = Figure(figsize=(5.8, 1.1 + min(4.6, max(2.0, tall))), layout="constrained")
        axes = figure.subplots()
        losses, norm, cut = clipped(data.losses)
        masked = np.ma.masked_invalid(losses)
        axes.set_facecolor(HOLE)
        levels = _levels(norm)
        filled = axes.contourf(data.x, data.y, masked, levels=levels, cmap=GROUND, norm=norm)
        axes.contour(
            data.x, data.y, masked, levels=levels[1:-1:2], colors="white", linewidths=0.4, alpha=0.8
        )
        _mark(axes, data)
        bar = figure.colorbar(filled, ax=axes, pad=0.02, aspect=28)
        bar.set_label("loss" + (", cut off above" if cut else ""))
        bar.outline.set_visible(False)
        _plain_ticks(bar.ax, norm)
        axes.set_xlabel(data.names[0])
        axes.set_ylabel(data.names[1])
        axes.grid(False)
        if data.equal:
            axes.set_aspect("equal")
        _finish(figure, data.title, data.caption)
    return figure


def surface_figure(data: PlaneData) -> Figure:
    """The plane as a surface of the loss's height, logarithmic where it spans decades."""
    with figure_style():
        figure = Figure(figsize=(5.8, 5.2))
        axes: Any = figure.add_axes((0.0, 0.16, 0.98, 0.78), projection="3d")
        losses, norm, cut = clipped(data.losses)
        logarithmic = isinstance(norm, LogNorm)
        height = np.log10(losses) if logarithmic else losses
        u, v = np.meshgrid(data.x, data.y)
        colors = GROUND(norm(np.nan_to_num(losses, nan=float(norm.vmax or 1.0))))
        axes.plot_surface(
            u, v, height, facecolors=colors, rstride=1, cstride=1, linewidth=0, shade=False
        )
        if len(data.path) and len(data.path_losses) == len(data.path):
            z = np.clip(data.path_losses, norm.vmin, norm.vmax)
            z = np.log10(z) if logarithmic else z
            axes.plot(*data.path.T, z, color=PALETTE[1], linewidth=2.0, zorder=10)
        axes.set_xlabel(data.names[0], labelpad=2)
        axes.set_ylabel(data.names[1], labelpad=2)
        axes.set_zlabel("loss" + (", cut off above" if cut else ""), labelpad=2)
        if logarithmic:
            decades = axes.get_zticks()
            inside = [t for t in decades if np.nanmin(height) <= t <= np.nanmax(height)]
            axes.set_zticks(inside, [f"{10**t:.2g}" for t in inside])
        axes.tick_params(labelsize=7, pad=0)
        axes.view_init(elev=32, azim=-60)
        _finish(figure, data.title, data.caption)
    return figure


def matrix_figure(data: MatrixData) -> Figure:
    """Barriers of all pairs as numbers on brightness; edges of the spanning tree have a frame."""
    count = len(data.names)
    with figure_style():
        side = 1.9 + 0.75 * count
        figure = Figure(figsize=(max(4.2, side), max(3.6, side - 0.4)), layout="constrained")
        axes = figure.subplots()
        shown = np.where(np.eye(count, dtype=bool), np.nan, data.barriers)
        largest = float(np.nanmax(np.where(np.isfinite(shown), shown, np.nan), initial=1e-12))
        axes.imshow(shown, cmap=GROUND, vmin=0.0, vmax=largest)
        for i in range(count):
            for j in range(count):
                if i != j:
                    value = data.barriers[i, j]
                    dark = value < 0.55 * largest
                    axes.text(
                        j, i, f"{value:.2g}", ha="center", va="center", fontsize=8,
                        color="white" if dark else INK,
                        fontweight="bold" if value <= data.tolerance else "normal",
                    )  # fmt: skip
        for i, j in data.tree:
            for row, column in ((i, j), (j, i)):
                axes.add_patch(
                    mpl.patches.Rectangle(
                        (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=PALETTE[1],
                        linewidth=2.0,
                    )
                )  # fmt: skip
        axes.set_xticks(range(count), data.names, rotation=30, ha="right")
        axes.set_yticks(range(count), data.names)
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        _finish(figure, data.title, data.caption)
    return figure


def clipped(losses: Array) -> tuple[Array, Normalize, bool]:
    """Losses cut off far above their median, the scale of colors, and whether any were cut.

    Without it a wall at the rim leaves the valley in one color. The scale is logarithmic where
    positive losses span more than a factor of ten.
    """
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return losses, Normalize(0.0, 1.0), False
    low = float(finite.min())
    high = float(max(np.quantile(finite, TOP_SHARE), low + 1e-12))
    if high > 0.5 * float(finite.max()):
        high = float(max(finite.max(), low + 1e-12))
    cut = bool((finite > high).any())
    shown = np.where(np.isfinite(losses), np.minimum(losses, high), np.nan)
    norm = LogNorm(low, high) if low > 0 and high > 10 * low else Normalize(low, high)
    return shown, norm, cut


def _levels(norm: Normalize) -> Array:
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 1.0)
    if isinstance(norm, LogNorm):
        return np.geomspace(low, high, LEVELS)
    return np.linspace(low, high, LEVELS)


def _mark(axes: Axes, data: PlaneData) -> None:
    if len(data.path):
        axes.plot(*data.path.T, color="white", linewidth=3.2, alpha=0.8)
        axes.plot(*data.path.T, color=PALETTE[1], linewidth=1.6, marker=".", markersize=3.5)
    for name, (x, y) in data.marks.items():
        axes.plot(x, y, "o", markersize=6, color=INK, markeredgecolor="white", zorder=5)
        axes.annotate(
            name, (x, y), (6, 5), textcoords="offset points", fontsize=8, color=INK,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "lw": 0},
        )  # fmt: skip


def _loss_axis(axes: Axes, losses: Array) -> None:
    axes.set_ylabel("loss")
    positive = losses[losses > 0]
    if len(positive) == len(losses) > 0 and positive.max() > 20 * positive.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=7))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6))


def _plain_ticks(axes: Any, norm: Normalize) -> None:
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 1.0)
    spaced = np.geomspace if isinstance(norm, LogNorm) else np.linspace
    ticks = spaced(low, high, 5)
    axes.set_yticks(ticks, [f"{t:.3g}" for t in ticks])
    axes.minorticks_off()


def _finish(figure: Figure, title: str, caption: str) -> None:
    """Title above, caption below, wrapped to the figure's width."""
    width = int(CAPTION_WIDTH * figure.get_figwidth())
    if title:
        lines = "\n".join(textwrap.wrap(title, int(width * 0.62)))
        figure.suptitle(lines, x=0.01, ha="left", fontsize=11, fontweight="bold")
    if caption:
        text = "\n".join(textwrap.wrap(caption, width))
        if figure.get_layout_engine() is not None:
            figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=FAINT)
        else:
            figure.text(0.01, 0.01, text, ha="left", va="bottom", fontsize=7.5, color=FAINT)
