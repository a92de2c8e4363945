"""The report of a study: a page, figures for a paper, and a summary on the terminal.

Names are imported when they are used, so that a summary on the terminal need not load Matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optiscope.report.study_report import write_report
    from optiscope.report.terminal import summary_json, summary_table

__all__ = ["summary_json", "summary_table", "write_report"]

_HOMES = {
    "summary_json": "optiscope.report.terminal",
    "summary_table": "optiscope.report.terminal",
    "write_report": "optiscope.report.study_report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
