"""Landscapes as one self-contained page: figures as SVG, surfaces that turn under the pointer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from optiscope.report.figures.landscape import GROUND, PlaneData, clipped
from optiscope.report.page.page import page_environment
from optiscope.report.svg import svg_text
from optiscope.report.tables.data_table import DataTable

__all__ = ["LandscapeSection", "render_landscape_page"]


@dataclass(frozen=True)
class LandscapeSection:
    """One figure of the page.

    Attributes:
        heading: above it.
        caption: what was computed, at what cost, with what error.
        figure: drawn as SVG, without its own caption.
        description: read out by screen readers.
        surface: a plane that can be turned; None where there is none.
        tables: below the figure.
    """

    heading: str
    caption: str
    figure: Figure
    description: str
    surface: PlaneData | None = None
    tables: tuple[DataTable, ...] = ()


def render_landscape_page(title: str, summary: str, sections: Sequence[LandscapeSection]) -> str:
    """The page as text; it loads nothing from the network."""
    files = resources.files("optiscope.report.page") / "templates"
    drawings = [
        Markup(svg_text(section.figure, f"f{k}", section.description))
        for k, section in enumerate(sections)
    ]
    surfaces = [
        None
        if section.surface is None
        else json.dumps(
            _turnable(section.surface) | _frame(section.figure.axes[0]), allow_nan=False
        )
        for section in sections
    ]
    return (
        page_environment()
        .get_template("landscape.html.j2")
        .render(
            title=title,
            summary=summary,
            sections=[
                (
                    section,
                    drawing,
                    None if surface is None else Markup(surface.replace("</", "<\\/")),
                )
                for section, drawing, surface in zip(sections, drawings, surfaces, strict=True)
            ],
            style=Markup((files / "report.css").read_text(encoding="utf-8")),
            script=Markup((files / "surface.js").read_text(encoding="utf-8")),
            version=metadata.version("optiscope"),
        )
    )


def _frame(axes: Axes) -> dict[str, Any]:
    """Where the axes of a drawn figure lie, as shares from its left and top, and their limits."""
    place = axes.get_position()
    return {
        "frame": [round(v, 5) for v in (place.x0, 1 - place.y1, place.x1, 1 - place.y0)],
        "limits": [float(v) for v in (*axes.get_xlim(), *axes.get_ylim())],
    }


def _turnable(data: PlaneData) -> dict[str, Any]:
    """A surface as plain numbers: heights from 0 to 1, colors, losses; null is a hole."""
    losses, norm, _ = clipped(data.losses)
    logarithmic = isinstance(norm, LogNorm)
    heights = np.asarray(np.ma.filled(norm(losses), np.nan), dtype=float)

    def plain(values: Any, digits: int) -> list[Any]:
        return [
            None if not np.isfinite(v) else float(f"{v:.{digits}g}")
            for v in np.asarray(values, dtype=float).ravel()
        ]

    path = np.asarray(data.path, dtype=float).reshape(-1, 2)
    along: list[Any] = []
    if len(path) and len(data.path_losses) == len(path):
        along = plain(np.ma.filled(norm(np.clip(data.path_losses, norm.vmin, norm.vmax)), 0.0), 4)
    shades = [GROUND(k / 63)[:3] for k in range(64)]
    return {
        "x": plain(data.x, 5),
        "y": plain(data.y, 5),
        "names": list(data.names),
        "heights": plain(heights, 4),
        "losses": plain(data.losses, 4),
        "low": float(norm.vmin or 0.0),
        "high": float(norm.vmax or 1.0),
        "log": logarithmic,
        "colors": ["#" + "".join(f"{round(255 * c):02x}" for c in rgb) for rgb in shades],
        "path": [[float(f"{a:.5g}"), float(f"{b:.5g}")] for a, b in path.tolist()],
        "along": along,
        "marks": [[name, x, y] for name, (x, y) in data.marks.items()],
    }
