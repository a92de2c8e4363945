"""What the runs cost, which failed, and where they ran."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from optiscope.records import Entry
from optiscope.report.appearance import Look
from optiscope.report.legend import Key
from optiscope.report.number_text import plain_text, point_text, seconds_text, significant
from optiscope.report.tables.data_table import Cell, DataTable, Row
from optiscope.stats.summary import Cost

__all__ = [
    "LISTED_FAILURES",
    "SHOWN_PHASE",
    "cost_table",
    "environment_table",
    "failure_counts",
    "failure_list",
    "finding_table",
]

LISTED_FAILURES: Final = 200
"""Longer lists of failures are cut here; the counts above them are not."""

SHOWN_PHASE: Final = 0.01
"""Phases that take less of a step everywhere get no column."""

_PHASE_WORDS: Final = {
    "data": "data",
    "forward_backward": "forward and backward",
    "optimizer": "optimizer",
    "instruments": "instruments",
    "evaluation": "evaluation",
}


def cost_table(costs: Sequence[Cost], looks: Mapping[str, Look], reference: str) -> DataTable:
    """Time and counted work per training step, by phase."""
    total = max((sum(c.phases.values()) for c in costs), default=0.0)
    phases = [
        p for p in _PHASE_WORDS if any(c.phases.get(p, 0.0) > SHOWN_PHASE * total for c in costs)
    ]
    rows = []
    for c in costs:
        ratio = (
            f"× {significant(float(np.median(c.ratios)))} "
            f"({significant(min(c.ratios))} to {significant(max(c.ratios))})"
            if c.ratios
            else "–"
        )
        memory = "–" if c.peak_memory_bytes is None else f"{c.peak_memory_bytes / 2**20:.0f} MiB"
        rows.append(
            Row(
                [
                    Cell(c.algorithm),
                    Cell(seconds_text(float(np.median(c.wall)))),
                    Cell(ratio),
                    Cell(seconds_text(float(np.median(c.cpu)))),
                    *(Cell(seconds_text(c.phases.get(phase, math.nan))) for phase in phases),
                    Cell(significant(c.gradient_evaluations)),
                    Cell(significant(c.hessian_products)),
                    Cell(memory),
                    Cell(seconds_text(c.total_wall)),
                ],
                Key.of(looks[c.algorithm]),
                looks[c.algorithm].number,
            )
        )
    columns = (
        "algorithm",
        "#wall per step",
        f"#relative to {reference}",
        "#CPU per step",
        *(f"#{_PHASE_WORDS[p]}" for p in phases),
        "#gradients",
        "#Hessian products",
        "#peak memory",
        "#training of a run",
    )
    caption = (
        "All but the last two columns are per training step: median wall and CPU time of training, "
        "mean wall time of each phase (evaluation is not training), and counted work."
    )
    refused = next((c.refused for c in costs if c.refused), None)
    if refused is not None:
        caption += f" No ratio is stated: {refused}."
    return DataTable(columns, rows, caption)


def failure_counts(bad: pd.DataFrame, runs: pd.DataFrame, looks: Mapping[str, Look]) -> DataTable:
    """Failed runs per algorithm, role and status, beside all planned ones."""
    statuses = list(dict.fromkeys(bad["status"]))
    rows = []
    for label, look in looks.items():
        for role in ("tuning", "reporting"):
            planned = runs[(runs["algorithm"] == label) & (runs["role"] == role)]
            mine = bad[(bad["algorithm"] == label) & (bad["role"] == role)]["status"]
            if not len(mine):
                continue
            counts = mine.value_counts()
            cells = [Cell(label), Cell(role), Cell(str(len(planned)))]
            cells += [Cell(str(counts.get(status, 0))) for status in statuses]
            rows.append(Row(cells, Key.of(look), look.number))
    return DataTable(("algorithm", "role", "#runs", *(f"#{s}" for s in statuses)), rows)


def failure_list(bad: pd.DataFrame, looks: Mapping[str, Look]) -> DataTable:
    """The failed runs, each with its step and reason."""
    rows = []
    for run in bad.head(LISTED_FAILURES).to_dict("records"):
        look = looks.get(run["algorithm"])
        if look is None:
            continue
        steps = run.get("steps")
        cells = [
            Cell(str(run["algorithm"])),
            Cell(str(run["problem"])),
            Cell(str(run["role"])),
            Cell(str(run["seed"])),
            Cell(str(run["status"])),
            Cell("–" if steps is None or pd.isna(steps) else str(int(steps))),
            Cell(str(run["reason"]), "words"),
            Cell(point_text(run["hyperparameters"])),
        ]
        rows.append(Row(cells, Key.of(look), look.number))
    columns = (
        "algorithm",
        "problem",
        "role",
        "#seed",
        "status",
        "#steps",
        "reason",
        "hyperparameters",
    )
    return DataTable(columns, rows)


def finding_table(
    watched: Sequence[tuple[Entry, Sequence[Mapping[str, Any]]]], looks: Mapping[str, Look]
) -> DataTable:
    """Warnings and errors by problem and algorithm, each with the number of its runs."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    runs: Counter[tuple[str, str]] = Counter()
    for entry, findings in watched:
        runs[entry.problem, entry.algorithm] += 1
        for finding in findings:
            if finding["severity"] != "note":
                key = (entry.problem, entry.algorithm, str(finding["rule"]))
                groups.setdefault(key, []).append(finding)
    rows = []
    for (problem, algorithm, rule), findings in groups.items():
        look = looks.get(algorithm)
        if look is None:
            continue
        worst = min(findings, key=lambda f: f["severity"] != "error")
        cells = [
            Cell(algorithm),
            Cell(problem),
            Cell(rule.replace("_", " ")),
            Cell(str(worst["severity"])),
            Cell(f"{len(findings)} of {runs[problem, algorithm]}"),
            Cell(str(worst["sentence"]), "words"),
        ]
        rows.append(Row(cells, Key.of(look), look.number))
    columns = ("algorithm", "problem", "finding", "severity", "runs", "for example")
    return DataTable(columns, rows)


def environment_table(environments: Sequence[tuple[Mapping[str, Any], int]]) -> DataTable:
    """Versions and hardware, one column per distinct environment."""
    shown = environments[:4]
    names = list(dict.fromkeys(name for values, _ in shown for name in values))
    rows = []
    for name in names:
        values = [plain_text(e.get(name)) for e, _ in shown]
        style = "bad" if len(set(values)) > 1 else ""
        rows.append(Row([Cell(name), *(Cell(value, style) for value in values)]))
    return DataTable(("", *(f"{count} runs" for _, count in shown)), rows)
