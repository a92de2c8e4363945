"""The report of a study: a page, figures for a paper, and a summary on the terminal."""

from optiscope.report.study_report import write_report
from optiscope.report.terminal import summary_json, summary_table

__all__ = ["summary_json", "summary_table", "write_report"]
