"""Writes the report of a study: the page, and figures for a paper on request."""

from __future__ import annotations

from pathlib import Path

from optiscope.records import StudyFolder
from optiscope.report.appearance import looks
from optiscope.report.page import render_page
from optiscope.stats.claims import claims_from
from optiscope.stats.study_table import read_study

__all__ = ["write_report"]


def write_report(folder: StudyFolder) -> Path:
    """Write ``report.html`` into the study's folder and return its path.

    Raises:
        StoreError: the folder holds no study, or cannot be read or written.
    """
    tables = read_study(folder)
    colours = {a.label: a.colour for a in tables.algorithms if a.colour}
    page = render_page(tables, looks(tables.labels, colours), claims_from(tables.evidence))
    target = folder.path / "report.html"
    target.write_text(page, encoding="utf-8")
    return target
