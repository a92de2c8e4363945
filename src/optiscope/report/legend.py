"""Legend entries, drawn the same way in the page and in figures for a paper."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.patches import Patch
from matplotlib.path import Path

from optiscope.report.appearance import INK, SHADE, Look

__all__ = [
    "CHOSEN",
    "FAILED_REGION",
    "FAILED_TRIAL",
    "MEAN",
    "PRUNED_TRIAL",
    "STOPPED_RUN",
    "Key",
    "add_legend",
]


@dataclass(frozen=True)
class Key:
    """One entry of a legend.

    Attributes:
        label: its words.
        color: of line, marker or area.
        dashes: on and off lengths in line widths; None for no line.
        marker: Matplotlib's name of the marker; None for no marker.
        area: whether it is a shaded area.
        size: of the marker in points.
        number: of the algorithm it stands for; None for a symbol.
    """

    label: str
    color: str
    dashes: tuple[float, ...] | None = None
    marker: str | None = None
    area: bool = False
    number: int | None = None
    size: float = 4.6

    @classmethod
    def of(cls, look: Look, *, line: bool = True, area: bool = False) -> Key:
        """The entry of an algorithm."""
        dashes = look.dashes if line else None
        marker = None if area else look.marker
        return cls(look.label, look.color, dashes, marker, area, look.number, look.size)

    @property
    def linestyle(self) -> Any:
        """The dashes as Matplotlib takes them."""
        if self.dashes is None:
            return "none"
        return (0, self.dashes) if self.dashes else "-"

    def handle(self) -> Artist:
        """The entry as Matplotlib's legend takes it."""
        if self.area:
            return Patch(facecolor=self.color, label=self.label)
        return Line2D(
            [],
            [],
            color=self.color,
            linestyle=self.linestyle,
            marker=self.marker or "",
            markersize=6 if self.marker == "x" else self.size,
            markeredgewidth=1.8 if self.marker == "x" else 0.5,
            label=self.label,
        )

    def swatch(self) -> str:
        """The entry as the content of an ``<svg viewBox="0 0 28 12">``."""
        if self.area:
            return f'<rect x="4" y="1" width="20" height="10" fill="{self.color}"/>'
        parts = []
        if self.dashes is not None:
            dashes = " ".join(f"{2 * d:g}" for d in self.dashes)
            parts.append(
                f'<path d="M1 6H27" stroke="{self.color}" stroke-width="2" fill="none"'
                + (f' stroke-dasharray="{dashes}"/>' if dashes else "/>")
            )
        if self.marker is not None:
            style = MarkerStyle(self.marker)
            path = style.get_path().transformed(style.get_transform())
            fill = self.color if style.is_filled() else "none"
            stroke = "#fff" if style.is_filled() else self.color
            width = 0.8 if style.is_filled() else 2.4
            parts.append(
                f'<path d="{_svg_path(path, self.size)}" fill="{fill}" stroke="{stroke}" '
                f'stroke-width="{width}"/>'
            )
        return "".join(parts)


CHOSEN: Final = Key("chosen value", INK, dashes=(2, 1))
FAILED_TRIAL: Final = Key("trial that failed", "#a03020", marker="x")
PRUNED_TRIAL: Final = Key("trial that failed or was pruned", "#a03020", marker="x")
FAILED_REGION: Final = Key("every trial failed", SHADE, area=True)
STOPPED_RUN: Final = Key("run that failed", INK, marker="x")
MEAN: Final = Key("mean", INK, marker="|")


def add_legend(figure: Figure, keys: Sequence[Key]) -> int:
    """Put the legend above the axes, in as many columns as fit; returns the number of its rows."""
    if not keys:
        return 0
    size = float(mpl.rcParams["legend.fontsize"])
    letter, gap, handle = 0.56 * size, 1.2 * size, (2.6 + 0.8) * size
    room = figure.get_figwidth() * 72 - 8
    labels = [textwrap.fill(key.label, int((room - handle) / letter)) for key in keys]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = int((room + gap) / (letter * longest + handle + gap))
    columns = max(1, min(len(keys), columns))
    figure.legend(
        handles=[key.handle() for key in keys],
        labels=labels,
        loc="outside upper left",
        ncols=columns,
        handlelength=2.6,
        columnspacing=1.2,
    )
    lines = sum(label.count("\n") for label in labels)
    return math.ceil(len(keys) / columns) + lines


def _svg_path(path: Path, radius: float) -> str:
    """A marker path of unit size around (14, 6), y downwards."""
    letters = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
    parts = []
    for points, code in path.iter_segments(curves=True, simplify=False):
        if code == Path.CLOSEPOLY:
            parts.append("Z")
            continue
        parts.append(letters[code] + " ".join(_placed(points, radius)))
    return "".join(parts)


def _placed(points: Iterable[float], radius: float) -> list[str]:
    values = list(points)
    return [
        f"{14 + 2 * radius * v:.1f}" if i % 2 == 0 else f"{6 - 2 * radius * v:.1f}"
        for i, v in enumerate(values)
    ]
