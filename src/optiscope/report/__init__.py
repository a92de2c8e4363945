"""The report of a study: a page, figures for a paper, and a summary on the terminal.

Names are imported when they are used, so that a summary on the terminal need not load Matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optiscope import lazy

if TYPE_CHECKING:
    from optiscope.report.study_report import write_report as write_report
    from optiscope.report.terminal import summary_json as summary_json
    from optiscope.report.terminal import summary_table as summary_table

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "study_report": ("write_report",),
        "terminal": (
            "summary_json",
            "summary_table",
        ),
    },
)
