"""The summary of a study on the terminal, and the same for machines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from optiscope.records import StudyFolder
from optiscope.report.number_text import metric_text, point_text, significant, spread_text
from optiscope.stats.study_table import StudyTables, read_study
from optiscope.stats.summary import Cost, Result, costs, results

__all__ = ["summary_json", "summary_table"]


def summary_table(folder: StudyFolder, *, tables: StudyTables | None = None) -> Table:
    """Final values of every algorithm on every problem, one row each.

    Args:
        folder: the study.
        tables: its records where they were read before; curves are not needed.

    Raises:
        StoreError: the folder holds no study, or cannot be read.
    """
    tables = read_study(folder, curves=False) if tables is None else tables
    table = Table(
        title=f"Study {tables.declaration['name']}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("algorithm", overflow="fold", min_width=12)
    table.add_column("mean ± sd", justify="right", no_wrap=True)
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("failed", overflow="fold", style="red")
    table.add_column("hyperparameters", overflow="fold")
    spent = {(c.problem, c.algorithm): c for c in costs(tables)}
    before = None
    for result in results(tables):
        if result.problem != before:
            if before is not None:
                table.add_section()
            table.add_row(Text(f"{result.problem}, test {result.metric}", style="bold"))
            before = result.problem
        table.add_row(
            Text(f"  {result.algorithm}"),
            _value(result),
            f"{len(result.values)}/{result.planned}",
            _ratio(spent.get((result.problem, result.algorithm))),
            ", ".join(f"{count} {status}" for status, count in result.failed.items()),
            Text(point_text(result.hyperparameters)),
        )
    reference = tables.declaration["reference"]
    table.caption = (
        "Final values over the seeds that reached their end; time per training step "
        f"relative to {reference}, median over seeds."
    )
    return table


def summary_json(folder: StudyFolder, *, tables: StudyTables | None = None) -> dict[str, Any]:
    """The same as plain values, with accuracies as fractions and None where nothing is known."""
    tables = read_study(folder, curves=False) if tables is None else tables
    spent = {(c.problem, c.algorithm): c for c in costs(tables)}
    return {
        "name": tables.declaration["name"],
        "question": tables.declaration["question"],
        "reference": tables.declaration["reference"],
        "results": [_plain(r, spent.get((r.problem, r.algorithm))) for r in results(tables)],
        "damaged": [str(record) for record in tables.damaged],
    }


def _value(result: Result) -> str:
    mean = metric_text(result.mean, result.metric)
    if not math.isfinite(result.deviation):
        return mean
    unit = " %" if result.metric == "accuracy" else ""
    return f"{mean.removesuffix(' %')} ± {spread_text(result.deviation, result.metric)}{unit}"


def _ratio(cost: Cost | None) -> str:
    if cost is None or not cost.ratios:
        return "–"
    return f"× {significant(float(np.median(cost.ratios)))}"


def _plain(result: Result, cost: Cost | None) -> dict[str, Any]:
    low, high = result.range
    return {
        "problem": result.problem,
        "algorithm": result.algorithm,
        "metric": f"test_{result.metric}",
        "values": {str(seed): value for seed, value in result.values.items()},
        "planned_seeds": result.planned,
        "failed": dict(result.failed),
        "mean": _known(result.mean),
        "standard_deviation": _known(result.deviation),
        "interval": [_known(v) for v in result.interval],
        "range": [_known(low), _known(high)],
        "hyperparameters": dict(result.hyperparameters),
        "imported": result.imported,
        "seconds_per_step": _known(float(np.median(cost.wall))) if cost else None,
        "relative_to_reference": _known(float(np.median(cost.ratios)))
        if cost and cost.ratios
        else None,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
