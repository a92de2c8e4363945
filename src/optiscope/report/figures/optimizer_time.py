"""The figure of ``optiscope time``: bars relative to the first optimizer, which stands at 1."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from optiscope.report.appearance import looks
from optiscope.report.figures.panel import Panel, rows_height
from optiscope.report.figures.step_time import RelativeTime, draw_time
from optiscope.report.paper import FORMATS, write_figures

__all__ = ["write_time_figure"]


def write_time_figure(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``time.pdf`` and ``time.png``.

    Args:
        content: as in ``time.json``: ``reference``, ``problem`` and ``rows``, each with
            ``optimizer`` and ``ratio`` (``median``, ``low``, ``high``).
        folder: where to.

    Raises:
        OSError: the folder cannot be written.
    """
    times = [
        RelativeTime(row["optimizer"], *(float(row["ratio"][k]) for k in ("median", "low", "high")))
        for row in content["rows"]
    ]
    found = looks([time.label for time in times])
    panel = Panel(
        name="time",
        draw=partial(draw_time, times=times, looks=found, reference=str(content["reference"])),
        description=f"time per training step on {content['problem']}",
        height=rows_height(len(times)),
    )
    return write_figures([panel], folder, FORMATS)
