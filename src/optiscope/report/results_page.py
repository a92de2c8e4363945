"""Recorded results of many studies in one table: a page with filters, and CSV.

Rows of different studies differ in horizon, batch size and tuning, so they are no comparison;
verdicts are a study's own.
"""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from optiscope.records import StoreError, StudyFolder
from optiscope.stats.study_table import StudyTables, read_study
from optiscope.stats.summary import results

__all__ = ["COLUMNS", "ResultRow", "read_results", "results_csv", "results_markdown"]


@dataclass(frozen=True)
class ResultRow:
    """What one algorithm reached on one problem in one study, over the evaluation seeds.

    Attributes:
        study: name of its folder.
        problem: name.
        algorithm: label in the study.
        optimizer: name or import path.
        tuning: ``default``, or the settings tried and the sampler.
        epochs: horizon.
        metric: of the test split: ``accuracy`` (a fraction) or ``loss``.
        mean: over the runs that reached their end; NaN without any.
        deviation: standard deviation over seeds (ddof 1); NaN below two runs.
        seeds: runs that reached their end.
        failed: runs that did not.
    """

    study: str
    problem: str
    algorithm: str
    optimizer: str
    tuning: str
    epochs: int
    metric: str
    mean: float
    deviation: float
    seeds: int
    failed: int


COLUMNS: Final = (
    "study", "problem", "algorithm", "optimizer", "tuning", "epochs", "metric", "mean",
    "deviation", "seeds", "failed",
)  # fmt: skip


def read_results(root: Path) -> list[ResultRow]:
    """Rows of every study in the folders of ``root``, at any depth; imported runs are left out.

    Raises:
        StoreError: ``root`` is no folder, or a study in it cannot be read.
    """
    if not root.is_dir():
        raise StoreError(f"expected a folder of studies, got {str(root)[-80:]!r}: name another")
    rows = []
    for declared in sorted(root.rglob("study.json")):
        folder = StudyFolder(declared.parent)
        name = declared.parent.relative_to(root).as_posix()
        rows += _rows_of(name, read_study(folder, curves=False))
    return rows


def _rows_of(study: str, tables: StudyTables) -> list[ResultRow]:
    rows = []
    for result in results(tables):
        if result.imported or not (result.values or result.failed):
            continue
        entry = tables.algorithm(result.algorithm)
        failed = {status: count for status, count in result.failed.items() if status != "missing"}
        if not result.values and not failed:
            continue
        rows.append(
            ResultRow(
                study=study,
                problem=result.problem,
                algorithm=result.algorithm,
                optimizer=entry.optimizer,
                tuning=f"{entry.budget} by {entry.sampler}" if entry.space else "default",
                epochs=int(tables.declaration["epochs"][result.problem]),
                metric=result.metric,
                mean=result.mean,
                deviation=result.deviation,
                seeds=len(result.values),
                failed=sum(failed.values()),
            )
        )
    return rows


def results_csv(rows: Sequence[ResultRow]) -> str:
    """The rows as CSV, with a head; numbers in full precision, NaN as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(["" if _is_nan(v) else v for v in (getattr(row, c) for c in COLUMNS)])
    return text.getvalue()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def results_markdown(rows: Sequence[ResultRow]) -> str:
    """A page in Markdown with an HTML table, two filters, a search field and the download."""
    problems = sorted({row.problem for row in rows})
    algorithms = sorted({row.algorithm for row in rows})
    head = (
        "<tr><th>problem</th><th>algorithm</th><th>tuning</th><th>epochs</th><th>test metric</th>"
        "<th>mean ± deviation</th><th>seeds</th><th>study</th></tr>"
    )
    body = "".join(_row(row) for row in rows)
    return _PAGE.format(
        count=len(rows),
        studies=len({row.study for row in rows}),
        problems=_options(problems),
        algorithms=_options(algorithms),
        head=head,
        body=body,
    )


def _options(values: Sequence[str]) -> str:
    return "".join(f"<option>{html.escape(value)}</option>" for value in values)


def _row(row: ResultRow) -> str:
    scale, digits, unit = (100, 2, " %") if row.metric.endswith("accuracy") else (1, 4, "")
    value = "-" if math.isnan(row.mean) else f"{scale * row.mean:.{digits}f}"
    if not math.isnan(row.deviation):
        value += f" ± {scale * row.deviation:.{digits}f}"
    runs = str(row.seeds) + (f" ({row.failed} failed)" if row.failed else "")
    cells = (
        row.problem, row.algorithm, row.tuning, str(row.epochs), row.metric, value + unit, runs,
        row.study,
    )  # fmt: skip
    attributes = f'data-problem="{html.escape(row.problem)}"'
    attributes += f' data-algorithm="{html.escape(row.algorithm)}"'
    return f"<tr {attributes}>{''.join(f'<td>{html.escape(c)}</td>' for c in cells)}</tr>"


_PAGE: Final = """# Results

{count} recorded results of {studies} studies, from the packed records in `benchmarks/records`.
Means and standard deviations are over evaluation seeds, at the end of training, on the test split.

Rows of different studies differ in horizon, batch size and tuning, so **two rows are not a
comparison**. Ask the study: `optiscope claim "A better than B on PROBLEM"
benchmarks/records/STUDY` answers yes, no, undecided, or says why it refuses.

<p class="results-filters">
<select id="results-problem" aria-label="problem"><option value="">all problems</option>
{problems}</select>
<select id="results-algorithm" aria-label="algorithm"><option value="">all algorithms</option>
{algorithms}</select>
<a href="results.csv" download>Download CSV</a>
<span id="results-count"></span>
</p>
<div class="results-scroll"><table class="results">
<thead>{head}</thead>
<tbody>{body}</tbody>
</table></div>
<script>
(function () {{
  var problem = document.getElementById("results-problem");
  var algorithm = document.getElementById("results-algorithm");
  var rows = document.querySelectorAll("table.results tbody tr");
  function show() {{
    var shown = 0;
    rows.forEach(function (row) {{
      var fits = (!problem.value || row.dataset.problem === problem.value) &&
        (!algorithm.value || row.dataset.algorithm === algorithm.value);
      row.hidden = !fits;
      if (fits) shown += 1;
    }});
    var words = shown + " of " + rows.length + " rows";
    document.getElementById("results-count").textContent = words;
  }}
  problem.onchange = algorithm.onchange = show;
  show();
}})();
</script>

## Submit a run

1. Write a study file, with ten or more evaluation seeds and one tuning budget for all algorithms
   ([Compare optimizers](study.md)).
2. Run it: `optiscope bench mine.toml`. Stop and go on as you like.
3. Pack it: `optiscope compact runs/mine`. A thousand runs become a few files.
4. Copy `runs/mine` to `benchmarks/records/mine`, build the site with `make docs`, look at your
   rows, and open a pull request that holds the records and the study file.

A record holds its environment, its seeds and a digest of its content. A reviewer runs
`optiscope status benchmarks/records/mine`, which reports damaged and missing records, and repeats
a few trials.
"""
