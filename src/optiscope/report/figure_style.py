"""Matplotlib's settings for every figure of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import matplotlib as mpl

from optiscope.report.appearance import FAINT, GRID, INK

__all__ = ["figure_style"]

_STYLE: Final[Mapping[str, Any]] = {
    "font.family": ["DejaVu Sans"],
    "text.parse_math": False,  # a label with dollar signs is a label
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,
    "axes.titlepad": 6.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.major.size": 0.0,
    "ytick.minor.size": 0.0,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "mathtext.default": "regular",
    "axes.formatter.useoffset": False,
    "path.simplify_threshold": 0.3,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "optiscope",
    "pdf.fonttype": 42,
}


_TEXT_SIZES: Final = (
    "font.size",
    "axes.titlesize",
    "axes.labelsize",
    "xtick.labelsize",
    "ytick.labelsize",
    "legend.fontsize",
)


@contextmanager
def figure_style(scale: float = 1.0) -> Iterator[None]:
    """Matplotlib's settings are those of our figures, text scaled, within this context."""
    sizes = {key: scale * size for key, size in _STYLE.items() if key in _TEXT_SIZES}
    with mpl.rc_context(cast(Any, {**_STYLE, **sizes})):
        yield
