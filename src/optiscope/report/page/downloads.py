"""What a reader takes from the page: final values, the study file, a citation, as data links."""

from __future__ import annotations

import base64
import csv
import io
from dataclasses import dataclass

from optiscope.report.content import ReportContent

__all__ = ["Download", "downloads", "final_values_csv"]


@dataclass(frozen=True)
class Download:
    """A file that the page carries.

    Attributes:
        words: of the link.
        file: name to save it under.
        link: ``data:`` URL with the whole content.
    """

    words: str
    file: str
    link: str


def downloads(content: ReportContent) -> list[Download]:
    """Every file of the page."""
    declaration = content.tables.declaration
    name = str(declaration["name"])
    found = [
        Download("Final values (CSV)", f"{name}.csv", _link("text/csv", final_values_csv(content)))
    ]
    if source := declaration.get("source"):
        found.append(
            Download("Study file (TOML)", f"{name}.toml", _link("text/plain", str(source)))
        )
    return found


def final_values_csv(content: ReportContent) -> str:
    """Final value of every seed: one row per problem, algorithm and seed that reached its end.

    Accuracies are fractions. Algorithms left out of the report are left out here.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["problem", "algorithm", "seed", "metric", "value"])
    for result in content.results:
        for seed, value in result.values.items():
            writer.writerow(
                [
                    result.problem,
                    result.algorithm,
                    seed,
                    f"test_{result.metric}",
                    repr(float(value)),
                ]
            )
    return text.getvalue()


def _link(kind: str, text: str) -> str:
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
