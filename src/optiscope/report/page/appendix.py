"""The end of the page: how everything was tuned, what failed, and all that repeating it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optiscope.report.appearance import Look
from optiscope.report.content import ReportContent
from optiscope.report.page.words import listed, metric_words
from optiscope.report.tables import runs as run_tables
from optiscope.report.tables import tuning as tuning_tables
from optiscope.stats.study_table import StudyTables
from optiscope.stats.summary import failures

__all__ = ["appendix"]


def appendix(
    content: ReportContent,
) -> list[dict[str, Any]]:
    """Sections with heading, lines and blocks of tables and text."""
    tables, looks, found = content.tables, content.looks, content.results
    declaration = tables.declaration
    tuning = declaration["tuning"]
    names = tuning_tables.full_names(tables, list(looks))
    parts = [
        {
            "id": "tuning",
            "heading": "Tuning protocol",
            "lines": [
                f"Tuning seeds {listed(tuning['seeds'])}, evaluation seeds "
                f"{listed(declaration['seeds'])}; selection by {metric_words(tuning['select'])}.",
                *_looks(declaration),
            ],
            "blocks": [
                {"table": tuning_tables.tuning_table(tables, looks)},
                {"table": tuning_tables.chosen_table(found, tables.problems, looks)},
                {"summary": "What was compared, in full", "text": "\n".join(names)},
            ],
        },
        _failures(tables, looks),
        *_findings(tables, looks),
        _reproducibility(tables),
    ]
    return parts


def _looks(declaration: Mapping[str, Any]) -> list[str]:
    """What is to be said of seeds that were added once results were known."""
    looks = declaration.get("looked_at")
    if not looks:
        return []
    return [
        f"Seeds were added after results with {listed(looks)} were known. Intervals and p-values "
        "do not account for that, as they would with optiscope bench --until-decided."
    ]


def _failures(tables: StudyTables, looks: Mapping[str, Look]) -> dict[str, Any]:
    bad = failures(tables)
    bad = bad[bad["algorithm"].isin(list(looks))]
    shown = tables.runs[tables.runs["algorithm"].isin(list(looks))]
    part: dict[str, Any] = {"id": "failures", "heading": "Failures", "lines": [], "blocks": []}
    if bad.empty:
        part["lines"].append("Every run that was recorded reached its end.")
    else:
        part["lines"].append(
            f"{len(bad)} of {len(shown)} planned runs did not reach their end. Failed trials of "
            "the tuning are charged to its budget."
        )
        part["blocks"].append({"table": run_tables.failure_counts(bad, shown, looks)})
        cut = run_tables.LISTED_FAILURES
        words = "every one" if len(bad) <= cut else f"the first {cut} of {len(bad)}"
        part["blocks"].append(
            {
                "summary": f"Step and reason, {words}",
                "table": run_tables.failure_list(bad, looks),
            }
        )
    if tables.damaged:
        text = "\n".join(f"{record.path.name}: {record.reason}" for record in tables.damaged)
        part["blocks"].append({"summary": "Damaged records", "text": text, "open": True})
    return part


def _findings(tables: StudyTables, looks: Mapping[str, Look]) -> list[dict[str, Any]]:
    """What a watch found, where the study has one."""
    watched = [pair for pair in tables.findings if pair[0].algorithm in looks]
    if not watched:
        return []
    table = run_tables.finding_table(watched, looks)
    words = f"{len(watched)} runs were watched"
    lines = [f"{words}; nothing was found." if not table.rows else f"{words}."]
    blocks = [{"table": table}] if table.rows else []
    return [{"id": "findings", "heading": "Findings", "lines": lines, "blocks": blocks}]


def _reproducibility(tables: StudyTables) -> dict[str, Any]:
    declaration = dict(tables.declaration)
    source = declaration.pop("source", None)
    blocks: list[dict[str, Any]] = [{"table": run_tables.environment_table(tables.environments)}]
    if source:
        blocks.append({"summary": "The study file", "text": source})
    resolved = json.dumps(declaration, indent=1, ensure_ascii=False)
    blocks.append({"summary": "The study, resolved", "text": resolved})
    started = tables.runs["started"].dropna()
    name = str(declaration["name"])
    lines = [
        f"To repeat this page: save the study file, then `pip install optiscope=="
        f"{declaration['version']}` and `optiscope bench {name}.toml`.",
        f"To cite it: The optiscope developers, optiscope {declaration['version']}, study "
        f"“{name}”.",
    ]
    if len(started):
        lines.append(f"Runs started between {min(started)} and {max(started)}.")
    return {
        "id": "reproducibility",
        "heading": "Reproduce this page",
        "lines": lines,
        "blocks": blocks,
    }
