"""Figures of ours beside the published ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from matplotlib.axes import Axes

from optiscope.report.appearance import FAINT, INK, PALETTE
from optiscope.report.axis_scale import set_linear
from optiscope.report.figures.panel import in_lines
from optiscope.reproduction.published_figures import Published

__all__ = ["Line", "draw_beside", "draw_rates", "draw_ratios"]

HERE, THERE = PALETTE[0], FAINT


@dataclass(frozen=True)
class Line:
    """Means with deviations (NaN where there is none) at some epochs."""

    label: str
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of_runs(cls, label: str, curves: Sequence[Mapping[int, float]], epochs: int) -> Line:
        """Of shares, in per cent, at the epochs that every run reached; failed runs left out.

        Of a failed run a curve has epoch 0 at most.
        """
        failed = sum(max(c, default=0) < 1 for c in curves)
        if 0 < failed < len(curves):
            label += f", {len(curves) - failed} of {len(curves)}"
        curves = [c for c in curves if max(c, default=0) >= 1]
        shared = [e for e in range(1, epochs + 1) if curves and all(e in c for c in curves)]
        values = [[100 * c[e] for c in curves] for e in shared]
        return cls(
            label,
            tuple(shared),
            tuple(fmean(v) for v in values),
            tuple(stdev(v) if len(v) > 1 else math.nan for v in values),
        )


def draw_beside(axes: Axes, title: str, lines: Sequence[Line]) -> None:
    """Test accuracy against epochs: here solid, published dashed, one deviation shaded.

    Of a single epoch, points with one deviation stand side by side.
    """
    if all(len(line.epochs) == 1 for line in lines):
        _draw_points(axes, title, lines)
        return
    styles = ((HERE, "solid", "o"), (THERE, (0, (5, 2)), None))
    for line, (colour, dashes, marker) in zip(lines, styles, strict=False):
        epochs, mean, half = (np.array(v) for v in (line.epochs, line.mean, line.deviation))
        if len(epochs) == 0:
            continue
        axes.fill_between(epochs, mean - half, mean + half, color=colour, alpha=0.16, linewidth=0)
        every = max(1, len(epochs) // 10)
        axes.plot(
            epochs, mean, color=colour, linestyle=dashes, marker=marker, markevery=every,
            label=line.label,
        )  # fmt: skip
    _finish(axes, title, "epoch", "test accuracy (%)")
    set_linear(axes, "x", integer=True)


def draw_ratios(
    axes: Axes, bars: Sequence[tuple[str, float, float, float, Published | None]]
) -> None:
    """Time relative to SGD: bars with intervals, and the published means with deviations."""
    for row, (_, middle, low, high, published) in enumerate(bars):
        axes.barh(row, middle, height=0.55, color=HERE, alpha=0.85, label="here" if not row else "")
        axes.plot([low, high], [row, row], color=INK, linewidth=1.4)
        if published is not None:
            axes.errorbar(
                published.mean, row + 0.36, xerr=published.deviation, color=THERE, marker="D",
                markersize=4, capsize=2, linestyle="none", label="published" if not row else "",
            )  # fmt: skip
    axes.axvline(1.0, color=FAINT, linewidth=1.0, linestyle=(0, (4, 2)))
    axes.set_yticks(range(len(bars)), [in_lines(label) for label, *_ in bars])
    axes.set_ylim(len(bars) - 0.3, -0.6)
    axes.set_xlim(0, None)
    axes.grid(axis="y", visible=False)
    _finish(axes, "Time of an epoch", "wall time (× SGD)", "")


def _draw_points(axes: Axes, title: str, lines: Sequence[Line]) -> None:
    for place, (line, colour) in enumerate(zip(lines, (HERE, THERE), strict=False)):
        axes.errorbar(place, line.mean, line.deviation, color=colour, marker="o", capsize=4)
    axes.set_xticks(range(len(lines)), [line.label for line in lines])
    axes.set_xlim(-0.7, len(lines) - 0.3)
    axes.grid(axis="x", visible=False)
    _finish(axes, title, f"after epoch {lines[0].epochs[0]}", "test accuracy (%)")


def draw_rates(
    axes: Axes,
    title: str,
    ours: Mapping[float, float],
    published: Mapping[float, float],
    constructed: Sequence[float],
    words: tuple[str, str],
) -> None:
    """Final accuracy against the rate; rates at which a run failed are crosses at the bottom."""
    everything = [v for v in (*ours.values(), *published.values()) if not math.isnan(v)]
    bottom = min(everything, default=0.0) - 4
    for values, colour, dashes, marker, label in (
        (ours, HERE, "solid", "o", words[0]),
        (published, THERE, (0, (5, 2)), "D", words[1]),
    ):
        rates = sorted(values)
        axes.plot(
            rates, [values[r] for r in rates], color=colour, linestyle=dashes, marker=marker,
            markersize=4, label=label,
        )  # fmt: skip
        failed = [r for r in rates if math.isnan(values[r])]
        axes.plot(
            failed, [bottom] * len(failed), color=colour, marker="x", linestyle="none",
            label=f"failed, {label.split(',')[0]}" if failed else "",
        )  # fmt: skip
    if constructed:
        low, high = min(constructed), max(constructed)
        axes.axvspan(low, max(high, low * 1.02), color=PALETTE[2], alpha=0.25, linewidth=0,
                     label="constructed rate")  # fmt: skip
    axes.set_xscale("log")
    _finish(axes, title, "learning rate", "test accuracy (%)")


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    handles, labels = axes.get_legend_handles_labels()
    kept = [(h, text) for h, text in zip(handles, labels, strict=True) if text]
    if kept:
        axes.legend(*zip(*kept, strict=True), loc="best")
