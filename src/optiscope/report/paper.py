"""Figures for a paper: one file per panel, legend above the axes, fonts embedded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from optiscope.report.figure_style import figure_style
from optiscope.report.figures.panel import Panel
from optiscope.report.legend import add_legend

__all__ = ["FORMATS", "paper_figure", "text_scale", "write_figures"]

FORMATS: Final = ("pdf", "png")

WIDTH: Final = 5.5
"""Inches, where no width is asked for: a text column of one-column paper."""

NARROW: Final = 4.5
"""Inches below which text is smaller."""

RESOLUTION: Final = 300
"""Dots per inch of PNG files."""


def write_figures(
    panels: Iterable[Panel], folder: Path, formats: Sequence[str], width: float | None = None
) -> list[Path]:
    """Write every panel in every format as ``<folder>/<panel name>.<format>``, numbered if need be.

    Args:
        panels: to draw.
        folder: made where missing.
        formats: of :data:`FORMATS`.
        width: inches.

    Raises:
        ValueError: another format.
        OSError: the folder cannot be written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"figures are written as {' or '.join(FORMATS)}, got {unknown[0]!r}")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    names: Counter[str] = Counter()
    with figure_style(text_scale(width)):
        for panel in panels:
            figure = paper_figure(panel, width)
            names[panel.name] += 1
            stem = panel.name if names[panel.name] == 1 else f"{panel.name}-{names[panel.name]}"
            for name in formats:
                path = folder / f"{stem}.{name}"
                metadata = {"CreationDate": None} if name == "pdf" else None
                figure.savefig(path, dpi=RESOLUTION, metadata=metadata)
                written.append(path)
    return written


def text_scale(width: float | None) -> float:
    """Scale of text in a figure: smaller in one that fills a narrow column."""
    return 0.85 if (width or WIDTH) < NARROW else 1.0


def paper_figure(panel: Panel, width: float | None = None) -> Figure:
    """The panel with its legend above, ``width`` inches wide."""
    width = width or WIDTH
    figure = Figure(figsize=(width, max(width * panel.height, 1.9)), layout="constrained")
    axes = figure.subplots()
    panel.draw(axes)
    rows = add_legend(figure, panel.keys)
    figure.set_figheight(figure.get_figheight() + 0.19 * rows)
    return figure
