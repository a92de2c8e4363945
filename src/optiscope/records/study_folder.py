"""A study on disk: its declaration, which run plays which part in it, and the runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optiscope.records.store import RunStore, StoreError, explain, write_json_atomically

__all__ = ["Entry", "StudyFolder"]

DECLARED = ("name", "question", "problems", "algorithms", "tuning", "seeds", "epochs", "metric")


@dataclass(frozen=True)
class Entry:
    """The part a trial plays in a study.

    Attributes:
        trial_hash: which trial.
        algorithm: label of the algorithm in the study.
        problem: name of the problem.
        role: ``tuning`` or ``reporting``.
        index: number of the hyperparameters within the tuning, from 0; -1 when reporting.
        hyperparameters: the point of Φ (or, when reporting, the chosen one).
        seed: the trial's seed.
    """

    trial_hash: str
    algorithm: str
    problem: str
    role: str
    index: int
    hyperparameters: Mapping[str, Any]
    seed: int


class StudyFolder:
    """``study.json`` (the resolved declaration), ``ledger.json`` (entries) and ``runs/``."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.store = RunStore(self.path / "runs")

    def write_declaration(self, declaration: Mapping[str, Any]) -> None:
        """Keep the resolved declaration, creating the folder; raises StoreError."""
        self._write("study.json", declaration)

    def declaration(self) -> dict[str, Any]:
        """The resolved declaration; raises StoreError where the folder holds no study."""
        content = self._read("study.json")
        missing = [w for w in DECLARED if not isinstance(content, dict) or w not in content]
        if missing:
            raise self._damaged("study.json", f"no {missing[0]!r} in it")
        return dict(content)

    def write_ledger(self, entries: Sequence[Entry]) -> None:
        """Keep the entries, in order; raises StoreError."""
        self._write("ledger.json", [asdict(entry) for entry in entries])

    def ledger(self) -> list[Entry]:
        """All entries, tuning first; empty before the first trial was planned."""
        if not (self.path / "ledger.json").exists():
            return []
        try:
            return [Entry(**values) for values in self._read("ledger.json")]
        except TypeError as error:
            raise self._damaged("ledger.json", str(error)) from None

    def _write(self, name: str, content: Any) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json_atomically(self.path / name, content)
        except OSError as error:
            raise StoreError(explain(error, self.path)) from error

    def _read(self, name: str) -> Any:
        path = self.path / name
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise StoreError(
                f"{self.path} holds no study ({name} is missing): "
                "give the folder that `optiscope bench` printed"
            ) from None
        except OSError as error:
            raise StoreError(explain(error, path)) from error
        except ValueError as error:
            raise self._damaged(name, str(error)) from error

    def _damaged(self, name: str, reason: str) -> StoreError:
        return StoreError(
            f"{self.path / name} is damaged ({reason}): run `optiscope bench` again with the "
            "study's file and this folder, no record is lost"
        )
