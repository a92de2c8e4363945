"""A store of 10,000 runs: summarised in ten seconds and a gigabyte, its page light and quick."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from synthetic import make_study, methods

from optiscope.records import StudyFolder

SUMMARISE = """
import resource, sys, time
start = time.process_time()
from optiscope.records import StudyFolder
from optiscope.report import summary_table
table = summary_table(StudyFolder(sys.argv[1]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(time.process_time() - start, peak, table.row_count)
"""

REPORT = """
import sys
from optiscope.records import StudyFolder
from optiscope.report import write_report
write_report(StudyFolder(sys.argv[1]))
"""

CLICK = """() => {
  const start = performance.now();
  document.querySelector('nav button[data-toggle="2"]').click();
  document.body.getBoundingClientRect();
  return performance.now() - start;
}"""

HIDDEN = """() => {
  const all = [...document.querySelectorAll('[data-alg="2"]')];
  return all.length > 100 && all.every(e => getComputedStyle(e).display === "none");
}"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Ten algorithms on ten problems, budget 90, ten seeds, thirty epochs: 10,000 runs."""
    folder = make_study(
        tmp_path_factory.mktemp("large"),
        algorithms=methods(10),
        problems=[f"problem_{k}" for k in range(10)],
        seeds=range(100, 110),
        budget=90,
        epochs=30,
    )
    assert len(folder.store.hashes()) == 10_000
    return folder


@pytest.mark.slow
def test_ten_thousand_runs_are_summarised_in_ten_seconds(large: StudyFolder) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SUMMARISE, str(large.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, peak, rows = done.stdout.split()
    assert int(rows) == 10 * 11
    assert float(seconds) < 10  # processor time: what else runs here must not decide
    assert int(peak) < 1e9


@pytest.mark.slow
def test_the_report_of_ten_thousand_runs_is_light_and_quick(
    large: StudyFolder, browser: Any
) -> None:
    subprocess.run([sys.executable, "-c", REPORT, str(large.path)], check=True)
    path: Path = large.path / "report.html"
    assert path.stat().st_size < 10e6
    # The best of three loads: what else this machine does at the time is not the page's doing.
    assert min(_milliseconds_until_interactive(browser, path) for _ in range(3)) < 2000


def _milliseconds_until_interactive(browser: Any, path: Path) -> float:
    """From asking for the page until an algorithm was hidden in all of it, by the page's clock."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_function("document.readyState === 'complete'")
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].domComplete")
    answered = page.evaluate(CLICK)
    assert page.evaluate(HIDDEN)
    page.close()
    return float(loaded + answered)
