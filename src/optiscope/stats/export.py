"""Results of a study as a table for a paper: mean and deviation over seeds, best means bold."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from optiscope.records import StudyFolder, higher_is_better
from optiscope.stats.study_table import read_study
from optiscope.stats.summary import Result, results

__all__ = ["latex_table", "markdown_table"]

_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def markdown_table(folder: StudyFolder) -> str:
    """Results as a Markdown table: a row per algorithm, a column per problem.

    The best mean of a column is bold, which is no verdict: see the study's claims.

    Raises:
        StoreError: the folder holds no study, or cannot be read.
    """
    head, rows = _cells(folder, "±", "**{}**", _markdown)
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def latex_table(folder: StudyFolder) -> str:
    """The same as a LaTeX tabular, for the package booktabs.

    Raises:
        StoreError: the folder holds no study, or cannot be read.
    """
    head, rows = _cells(folder, r"$\pm$", r"\textbf{{{}}}", _latex)
    columns = "l" + "r" * (len(head) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(head) + r" \\"]
    lines += [r"\midrule", *(" & ".join(row) + r" \\" for row in rows), r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _cells(
    folder: StudyFolder, sign: str, bold: str, write: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    tables = read_study(folder, curves=False)
    found = {(r.problem, r.algorithm): r for r in results(tables)}
    heads = []
    for problem in tables.problems:
        metric = tables.metric(problem)
        percent = ", %" if metric.endswith("accuracy") else ""
        heads.append(write(f"{problem} (test {metric}{percent})"))
    best = {p: _best([found[p, label] for label in tables.labels]) for p in tables.problems}
    rows = []
    for label in tables.labels:
        row = [write(label)]
        for problem in tables.problems:
            text = _cell(found[problem, label], sign)
            row.append(bold.format(text) if label == best[problem] else text)
        rows.append(row)
    return [write("algorithm"), *heads], rows


def _best(column: Sequence[Result]) -> str | None:
    """Label of the best mean among algorithms whose runs all reached their end."""
    sound = [r for r in column if r.all_complete and math.isfinite(r.mean)]
    if not sound:
        return None
    sign = -1 if higher_is_better(sound[0].metric) else 1
    return min(sound, key=lambda r: sign * r.mean).algorithm


def _cell(result: Result, sign: str) -> str:
    """Mean and deviation; how many runs failed where some did; a dash without any."""
    if not math.isfinite(result.mean):
        return "–"
    scale, digits = (100, 2) if result.metric.endswith("accuracy") else (1, 4)
    text = f"{scale * result.mean:.{digits}f}"
    if math.isfinite(result.deviation):
        text += f" {sign} {scale * result.deviation:.{digits}f}"
    return text if result.all_complete else f"{text} ({_failed(result.failed)})"


def _failed(failed: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in failed.items()).replace("_", " ")


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", " ".join(text.split()))


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in " ".join(text.split()))
