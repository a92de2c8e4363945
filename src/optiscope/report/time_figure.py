"""The figure of ``optiscope time`` as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from optiscope.report.appearance import looks
from optiscope.report.draw_time import RelativeTime, draw_time

__all__ = ["write_time_figure"]


def write_time_figure(content: Mapping[str, Any], folder: Path, width: float = 5.0) -> list[Path]:
    """Write ``time.pdf`` and ``time.png``: a bar per optimizer, the reference at 1.

    Args:
        content: what ``optiscope time --json`` prints.
        folder: where to write.
        width: in inches.

    Raises:
        OSError: the folder cannot be written.
    """
    rows = content["rows"]
    names = [row["optimizer"] for row in rows]
    figure = Figure(figsize=(width, 1.1 + 0.36 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    times = [
        RelativeTime(
            row["optimizer"], row["ratio"]["median"], row["ratio"]["low"], row["ratio"]["high"]
        )
        for row in rows
    ]
    draw_time(axes, times, looks(names), content["reference"])
    axes.set_title(f"{content['problem']}, batch {content['batch_size']}: time per step")
    written = [folder / "time.pdf", folder / "time.png"]
    with mpl.rc_context({"pdf.fonttype": 42}):
        for path in written:
            figure.savefig(path, dpi=200)
    return written
