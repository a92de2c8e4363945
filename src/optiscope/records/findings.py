"""What a watch found in a run: ``findings.json`` beside its record, which it is no part of.

A run that is watched has the same hash and the same record as one that is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optiscope.records.schema import SchemaError, read_json

__all__ = ["FILE", "Monitoring", "read_findings"]

FILE = "findings.json"
MOST = 1000


@dataclass(frozen=True)
class Monitoring:
    """How the runs of a study are watched; the words are those of ``optiscope.watch``."""

    instruments: str | tuple[str, ...] = "light"
    every: int = 10
    budget: float = 0.05
    expects: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``optiscope.watch``."""
        return vars(self).copy()


def read_findings(folder: Path) -> list[Mapping[str, Any]] | None:
    """Findings kept in the folder of a run, as ``Finding.to_dict`` gives them.

    None where it was not watched, or where the file is no list of findings.
    """
    try:
        content = read_json(folder / FILE)
    except (OSError, SchemaError):
        return None
    if not isinstance(content, list):
        return None
    words = ("rule", "severity", "sentence")
    return [
        item
        for item in content[:MOST]
        if isinstance(item, dict) and all(isinstance(item.get(word), str) for word in words)
    ]
