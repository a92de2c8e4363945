"""The tables of docs/problems.md, written from the problems themselves.

``python -m optiscope.problems.table docs/problems.md`` brings the page up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from optiscope.problems.problem import Baseline, Problem
from optiscope.problems.registry import entries, get

__all__ = ["baseline_table", "problem_table", "with_tables"]


def problem_table() -> str:
    """Markdown table of all shipped problems, in the catalogue's order."""
    head = (
        "problem",
        "data",
        "licence",
        "model",
        "parameters",
        "batch",
        "epochs",
        "best published",
    )
    rows = []
    for entry in entries():
        problem = get(entry.name)
        rows.append(
            (
                f"`{entry.name}`",
                entry.dataset,
                problem.licence.partition(" (")[0],
                entry.model,
                f"{entry.parameters:,}",
                str(entry.batch_size),
                str(entry.epochs),
                _best(problem),
            )
        )
    return _markdown(head, rows)


def baseline_table() -> str:
    """Markdown table of the published tuned results, a row for each problem and source."""
    head = ("problem", "metric", "source", "SGD", "momentum", "Nesterov", "Adam")
    rows = []
    for entry in entries():
        baselines = get(entry.name).baselines
        for source in dict.fromkeys(baseline.source for baseline in baselines):
            found = {b.optimizer: b for b in baselines if b.source == source}
            metric = next(iter(found.values())).metric.replace("_", " ")
            cells = [
                f"{_value(b)} at {b.hyperparameters['lr']:.4g}" if b else "-"
                for b in map(found.get, ("sgd", "momentum", "nesterov", "adam"))
            ]
            rows.append((f"`{entry.name}`", metric, source, *cells))
    return _markdown(head, rows)


TABLES = {"problems": problem_table, "baselines": baseline_table}


def with_tables(page: str) -> str:
    """The page with each table between ``<!-- NAME -->`` and ``<!-- end NAME -->`` written anew.

    Raises:
        ValueError: the page lacks a table's marks.
    """
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        before, opened, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            raise ValueError(f"expected the marks {start} and {end} in the page, got no such pair")
        page = f"{before}{start}\n\n{table()}\n{end}{after}"
    return page


def _value(baseline: Baseline) -> str:
    """Mean and standard deviation, four decimals for accuracies and two for losses."""
    digits = 4 if baseline.metric.endswith("accuracy") else 2
    return f"{baseline.mean:.{digits}f} ± {baseline.std:.{digits}f}"


def _best(problem: Problem) -> str:
    """The best published tuned result in a few words, "-" where there is none."""
    if not problem.baselines:
        return "-"
    sign = 1 if problem.metric is not None and problem.metric.higher_is_better else -1
    best = max(problem.baselines, key=lambda baseline: sign * baseline.mean)
    framework = "TensorFlow" if "TensorFlow" in best.source else "PyTorch"
    return f"{best.metric.replace('_', ' ')} {_value(best)} ({best.optimizer}, {framework})"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
