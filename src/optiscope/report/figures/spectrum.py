"""Figure of a spectrum: leading eigenvalues with errors, the density with atoms, H = G + R.

Index legend: k pairs, L grid points.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optiscope.report.appearance import FAINT, GRID, PALETTE
from optiscope.report.figure_style import figure_style

__all__ = ["DensityLine", "Leading", "spectrum_figure"]

BLUE, VERMILION, GREEN = PALETTE[:3]
_CAPTION_WIDTHS = {1: 96, 2: 148, 3: 205}  # characters of a line, by number of panels


@dataclass(frozen=True)
class Leading:
    """The leading eigenvalues, and where the bulk begins.

    Attributes:
        values: [k], largest first.
        errors: [k], standard errors from the data; None where there are none.
        threshold: edge of the bulk; NaN or infinite where there is none.
        outliers: number of eigenvalues above it, in words.
    """

    values: Sequence[float]
    errors: Sequence[float] | None
    threshold: float
    outliers: str


@dataclass(frozen=True)
class DensityLine:
    """The density on an axis that is linear near zero and logarithmic beyond.

    Attributes:
        grid: [L], eigenvalues.
        density: [L], mass per unit of asinh(eigenvalue / linear_below).
        half_width: [L], of the 95 % band from probes and steps.
        data: [L], standard error from the data, or None.
        atoms: exact eigenvalues, drawn as stems.
        atom_mass: mass of each.
        linear_below: where the axis turns logarithmic.
    """

    grid: Sequence[float]
    density: Sequence[float]
    half_width: Sequence[float]
    data: Sequence[float] | None
    atoms: Sequence[float]
    atom_mass: float
    linear_below: float


def spectrum_figure(
    title: str,
    leading: Leading,
    caption: str,
    density: DensityLine | None = None,
    parts: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Leading eigenvalues; beside them the density and the parts of the Hessian, if given.

    Args:
        title: of the figure.
        leading: the top eigenvalues.
        caption: what was computed, at what cost, and which errors the bars hold.
        density: of all eigenvalues.
        parts: leading eigenvalues of the Hessian, the Gauss-Newton matrix and the residual.
    """
    panels = 1 + (density is not None) + (parts is not None)
    lines = textwrap.wrap(caption, _CAPTION_WIDTHS[panels])
    with figure_style():
        width = {1: 6.4, 2: 9.6, 3: 13.0}[panels]
        figure = Figure(figsize=(width, 3.9 + 0.16 * len(lines)), layout="constrained")
        axes = list(np.atleast_1d(figure.subplots(1, panels)))
        _draw_leading(axes.pop(0), leading)
        if density is not None:
            _draw_density(axes.pop(0), density)
        if parts is not None:
            _draw_parts(axes.pop(0), parts)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.supxlabel(
            "\n".join(lines), x=0.01, ha="left", fontsize=8, color=FAINT, linespacing=1.3
        )
    return figure


def _draw_leading(axes: Axes, leading: Leading) -> None:
    values = np.asarray(leading.values, dtype=np.float64)
    ranks = np.arange(1, len(values) + 1)
    above = values > leading.threshold
    errors = None if leading.errors is None else 1.96 * np.asarray(leading.errors)
    groups = (
        (above, VERMILION, "o", leading.outliers),
        (~above, BLUE, "s", "bulk" if above.any() else "eigenvalues"),
    )
    for mask, color, marker, label in groups:
        if mask.any():
            axes.errorbar(
                ranks[mask],
                values[mask],
                yerr=None if errors is None else errors[mask],
                fmt=marker,
                color=color,
                capsize=2.5,
                elinewidth=1.1,
                markersize=5,
                label=label,
            )
    if math.isfinite(leading.threshold) and above.any():
        axes.axhline(leading.threshold, color=FAINT, linewidth=1.0, linestyle=(0, (5, 3)))
        axes.annotate(
            f"edge {leading.threshold:.3g}",
            (0.02, leading.threshold),
            xycoords=("axes fraction", "data"),
            ha="left",
            va="bottom",
            color=FAINT,
            fontsize=8,
        )
    axes.set_title("leading eigenvalues")
    axes.set_xlabel("rank")
    axes.set_ylabel("eigenvalue")
    if (values > 0).all() and values[0] > 20 * values[-1]:
        axes.set_yscale("log")
    step = max(1, math.ceil(len(values) / 10))
    axes.set_xticks(ranks[::step])
    axes.legend(loc="upper right")


def _draw_density(axes: Axes, line: DensityLine) -> None:
    grid, density = np.asarray(line.grid), np.asarray(line.density)
    place = np.arcsinh(grid / line.linear_below)
    peak = float(density.max())
    floor = max(min(line.atom_mass / 2, peak * 1e-2), peak * 1e-7)
    band = np.asarray(line.half_width)
    shown = np.where(density > floor / 3, density, np.nan)
    axes.fill_between(
        place,
        np.clip(density - band, floor, None),
        np.clip(density + band, floor, None),
        where=density > floor,
        color=BLUE,
        alpha=0.22,
        linewidth=0,
        label="95 % band, probes and steps",
    )
    if line.data is not None:
        reach = 1.96 * np.asarray(line.data)
        for sign in (-1, 1):
            axes.plot(
                place,
                np.where(density + sign * reach > floor, density + sign * reach, np.nan),
                color=GREEN,
                linewidth=0.9,
                linestyle=(0, (2, 1.5)),
                label="95 % band, data" if sign > 0 else None,
            )
    axes.plot(place, shown, color=BLUE, linewidth=1.5, label="density")
    if len(line.atoms):
        atoms = np.arcsinh(np.asarray(line.atoms) / line.linear_below)
        axes.vlines(atoms, floor, line.atom_mass, color=VERMILION, linewidth=1.2)
        axes.plot(
            atoms,
            np.full(len(atoms), line.atom_mass),
            "o",
            color=VERMILION,
            markersize=4,
            label="exact eigenvalues (mass 1/N each)",
        )
    axes.set_yscale("log")
    axes.set_ylim(floor, peak * (peak / floor) ** 0.4)  # room for the legend
    ends = [float(place.min()), float(place.max())]
    ticks = _ticks(line.linear_below, ends[0], ends[1])
    places = [math.asinh(tick / line.linear_below) for tick in ticks]
    axes.set_xticks(places, [f"{tick:g}" for tick in ticks])
    axes.set_title("density of all eigenvalues")
    axes.set_xlabel("eigenvalue (linear near 0, logarithmic beyond)")
    axes.set_ylabel("share of eigenvalues per unit of the axis")
    axes.legend(loc="upper right", fontsize=7.5)


def _ticks(linear_below: float, low: float, high: float) -> list[float]:
    """Zero and powers of ten on both sides, at most four a side."""
    ticks = [0.0]
    for sign, end in ((1, high), (-1, -low)):
        if end <= 1:
            continue
        first = math.ceil(math.log10(linear_below))
        last = math.floor(math.log10(linear_below * math.sinh(end)))
        step = max(1, math.ceil((last - first + 1) / 4))
        ticks += [sign * 10.0**power for power in range(last, first - 1, -step)]
    return sorted(ticks)


def _draw_parts(axes: Axes, parts: Mapping[str, Sequence[float]]) -> None:
    styles = [(VERMILION, "o"), (BLUE, "s"), (GREEN, "^")]
    for (name, values), (color, marker) in zip(parts.items(), styles, strict=False):
        ranks = np.arange(1, len(values) + 1)
        axes.plot(ranks, values, marker, color=color, label=name, linestyle="-", linewidth=1.0)
    axes.axhline(0, color=GRID, linewidth=1.0)
    axes.set_title("H = G + R")
    axes.set_xlabel("rank")
    axes.set_ylabel("largest eigenvalues")
    axes.set_xticks(range(1, max(len(v) for v in parts.values()) + 1))
    axes.legend(loc="upper right")
