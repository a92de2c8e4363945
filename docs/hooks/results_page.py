"""Hook of MkDocs: the page of recorded results, from the packed records of benchmarks/records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from optiscope.report.results_page import read_results, results_csv, results_markdown

RECORDS = Path(__file__).parents[2] / "benchmarks" / "records"


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the page and the table for download."""
    rows = read_results(RECORDS)
    files.append(File.generated(config, "results.md", content=results_markdown(rows)))
    files.append(File.generated(config, "results.csv", content=results_csv(rows)))
    return files
