"""What a figure of the report is made of, before anything is drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes

from optiscope.report.legend import Key

__all__ = [
    "LINE",
    "FigureGroup",
    "Panel",
    "file_name",
    "in_lines",
    "label_width",
    "rows_height",
    "shortened",
]


LINE: Final = 20
"""Letters of a label in a line beside the axes."""


TITLE: Final = 36
"""Letters of a label above the axes."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        name: unique in the study, fit for a file name.
        draw: puts title, labels and artists on the axes.
        description: read out by screen readers.
        height: of the figure over its width.
        left: inches left of the axes, for the labels of the y axis.
        right: inches right of the axes.
        keys: legend.
        algorithm: number of the only algorithm shown, or None.
    """

    name: str
    draw: Callable[[Axes], None]
    description: str
    height: float = 0.7
    left: float = 0.62
    right: float = 0.1
    keys: tuple[Key, ...] = ()
    algorithm: int | None = None


@dataclass(frozen=True)
class FigureGroup:
    """Panels that belong together under one heading and one legend.

    Attributes:
        name: unique in the study.
        kind: ``curves``, ``final``, ``sensitivity``, ``map``, ``budget``, ``time`` or ``profile``.
        heading: above the panels.
        note: what the marks mean.
        panels: in reading order.
        keys: legend.
    """

    name: str
    kind: str
    heading: str
    note: str
    panels: tuple[Panel, ...]
    keys: tuple[Key, ...] = ()


def file_name(text: str) -> str:
    """The text with everything but letters, digits and hyphens replaced by hyphens."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text).strip("-").lower()


def rows_height(rows: int) -> float:
    """Height over width of a panel with one row per algorithm."""
    return 0.26 + 0.075 * max(rows, 4)


def in_lines(label: str) -> str:
    """A label broken into lines that fit beside the axes."""
    return "\n".join(textwrap.wrap(label, LINE))


def shortened(label: str) -> str:
    """A label that fits above a panel."""
    return textwrap.shorten(label, TITLE, placeholder=" …")


def label_width(labels: Sequence[str]) -> float:
    """Inches for names of algorithms at 8.5 points, and the axis label beside them."""
    return 0.42 + 0.078 * max(len(line) for label in labels for line in label.splitlines())
