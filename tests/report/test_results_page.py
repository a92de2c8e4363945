"""The table of recorded results: its rows, its CSV, its page."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest

from optiscope.records import StoreError
from optiscope.report.results_page import (
    ResultRow,
    read_results,
    results_csv,
    results_markdown,
)

RECORDS = Path(__file__).parents[2] / "benchmarks" / "records"
ROW = ResultRow(
    "study", "digits_mlp", "Adam", "adam", "8 by grid", 10, "accuracy", 0.975, 0.01, 5, 1
)


def test_packed_records_become_rows() -> None:
    rows = read_results(RECORDS / "fashion_quick")
    assert [row.algorithm for row in rows] == [
        "SGD",
        "Momentum",
        "Adam",
        "PreconditionedSGD",
        "Lark",
    ]
    assert {row.tuning for row in rows} == {"8 by grid", "default"}
    assert all(row.seeds == 5 and row.epochs == 3 and 0.5 < row.mean < 1 for row in rows)


def test_csv_holds_full_precision_and_leaves_nan_empty() -> None:
    text = results_csv([ROW, replace(ROW, mean=1 / 3, deviation=math.nan)])
    first, second = csv.DictReader(io.StringIO(text))
    assert float(second["mean"]) == 1 / 3
    assert second["deviation"] == ""
    assert first["failed"] == "1"


def test_page_states_percent_failures_and_escapes_names() -> None:
    page = results_markdown([ROW, replace(ROW, algorithm="<b>{x}", metric="loss", mean=math.nan)])
    assert "97.50 ± 1.00 %" in page
    assert "5 (1 failed)" in page
    assert "&lt;b&gt;{x}" in page
    assert "<b>" not in page
    assert "2 recorded results of 1 studies" in page


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected a folder of studies"):
        read_results(tmp_path / "none")
