"""The summary of a study on the terminal, and the same for machines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill, indent
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from optiscope.records import StudyFolder
from optiscope.records.crashes import crashes
from optiscope.report.answers import answer
from optiscope.report.number_text import metric_text, point_text, significant, spread_text
from optiscope.report.page.words import AT_THE_EDGE, edge_words
from optiscope.stats.claims import claims_from
from optiscope.stats.goals import goal_results
from optiscope.stats.study_table import StudyTables, read_study
from optiscope.stats.summary import Cost, Result, costs, results
from optiscope.stats.tuning_curve import tuning_summaries

__all__ = ["summary_json", "summary_table"]

WIDEST_LABEL = 26  # characters, indentation included; longer labels are folded


def summary_table(
    folder: StudyFolder,
    *,
    tables: StudyTables | None = None,
    algorithms: Sequence[str] | None = None,
) -> Table:
    """Final values of every algorithm on every problem, one row each, and who won below them.

    Args:
        folder: the study.
        tables: its records where they were read before; curves are not needed.
        algorithms: labels of those that have a row; all by default. The sentences are about all.

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
        collapse_padding=True,
    )
    table.add_column("algorithm", no_wrap=True)
    table.add_column("mean ± sd", justify="right", no_wrap=True)
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    found = results(tables)
    table.add_column("chosen", overflow="fold")
    spent = {(c.problem, c.algorithm): c for c in costs(tables)}
    claims, goals = claims_from(tables.evidence), goal_results(tables, found)
    lines = [
        "Final values over the seeds that reached their end; time per training step relative to "
        f"{tables.declaration['reference']}, median over seeds."
    ]
    for problem in tables.problems:
        if table.row_count:
            table.add_section()
        mine = [r for r in found if r.problem == problem]
        table.add_row(
            Text(fill(f"{problem}, test {tables.metric(problem)}", WIDEST_LABEL), style="bold")
        )
        for result in mine:
            if algorithms is not None and result.algorithm not in algorithms:
                continue
            table.add_row(
                _label(result),
                _value(result),
                f"{len(result.values)}/{result.planned}",
                _ratio(spent.get((problem, result.algorithm))),
                Text(point_text(result.hyperparameters)),
            )
        lines.append(f"{problem}: {answer(problem, mine, claims, goals).text}")
    edges = [
        edge_words(summary.algorithm, summary.problem, edge)
        for summary in tuning_summaries(tables)
        for edge in summary.edges
    ]
    if edges:
        more = f"; and {len(edges) - 1} more, see the page" if len(edges) > 1 else ""
        lines.append(f"{AT_THE_EDGE}: {edges[0]}{more}.")
    refused = {c.problem: c.refused for c in spent.values() if c.refused}
    lines += [f"No ratio of times: {reason}." for reason in refused.values()]
    if tables.damaged:
        lines.append(f"{len(tables.damaged)} damaged records: run `optiscope bench` again.")
    table.caption = Text("\n".join(lines))
    return table


def summary_json(folder: StudyFolder, *, tables: StudyTables | None = None) -> dict[str, Any]:
    """Results, claims and tuning as plain values.

    Accuracies are fractions; None stands where nothing is known.
    """
    tables = read_study(folder, curves=False) if tables is None else tables
    spent = {(c.problem, c.algorithm): c for c in costs(tables)}
    found = results(tables)
    content = {
        "name": tables.declaration["name"],
        "question": tables.declaration["question"],
        "reference": tables.declaration["reference"],
        "results": [_plain(r, spent.get((r.problem, r.algorithm))) for r in found],
        "claims": [claim.to_dict() for claim in claims_from(tables.evidence)],
        "goals": [goal.to_dict() for goal in goal_results(tables, found)],
        "tuning": [summary.to_dict() for summary in tuning_summaries(tables)],
        "crashed": crashes(tables.evidence.ended),
        "damaged": [str(record) for record in tables.damaged],
    }
    known: dict[str, Any] = _known(content)
    return known


def _label(result: Result) -> Text:
    """An algorithm's label, and below it how many of its runs did not reach their end."""
    label = Text(indent(fill(result.algorithm, WIDEST_LABEL - 2), "  "))
    if result.failed:
        failed = ", ".join(f"{count} {status}" for status, count in result.failed.items())
        label.append("\n" + indent(fill(failed, WIDEST_LABEL - 4), "    "), style="red")
    return label


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
    return {
        "problem": result.problem,
        "algorithm": result.algorithm,
        "metric": f"test_{result.metric}",
        "values": {str(seed): value for seed, value in result.values.items()},
        "planned_seeds": result.planned,
        "failed": dict(result.failed),
        "mean": result.mean,
        "standard_deviation": result.deviation,
        "interval": list(result.interval),
        "range": list(result.range),
        "hyperparameters": dict(result.hyperparameters),
        "imported": result.imported,
        "seconds_per_step": float(np.median(cost.wall)) if cost else None,
        "relative_to_reference": float(np.median(cost.ratios)) if cost and cost.ratios else None,
        "time_refused": cost.refused if cost else None,
    }


def _known(value: Any) -> Any:
    """The value with None for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
