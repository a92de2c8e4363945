"""A study on disk: its declaration, which run plays which part in it, and the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from optiscope.atomic_file import write_json_atomically
from optiscope.records.record_file import digest_of
from optiscope.records.run import Run
from optiscope.records.schema import SchemaError, Table, check_entries, check_study, read_json
from optiscope.records.store import RunStore, StoreError, explain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Entry", "StudyFolder"]

DECLARED = ("name", "question", "problems", "algorithms", "tuning", "seeds", "epochs", "metric")
COLUMNS = (
    "problem", "algorithm", "role", "index", "seed", "status", "reason", "steps",
    "training_seconds", "trial_hash",
)  # fmt: skip


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
    """``study.json`` (the resolved declaration), ``ledger.json`` (entries) and ``runs/``.

    Both files carry a digest of their content: one that was edited after it was written is refused
    like one that is damaged. Files of versions before the digest have none.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.store = RunStore(self.path / "runs")

    def frame(self) -> pd.DataFrame:
        """One row per planned trial with its status, hyperparameters, final and best values.

        Rows are in order of the ledger. Columns: ``problem``, ``algorithm``, ``role`` (tuning or
        reporting), ``index`` in the tuning, ``seed``, ``status`` (``missing`` without a record,
        ``damaged`` with one that cannot be read), ``reason``, ``steps``, ``training_seconds``
        (wall), ``trial_hash``, hyperparameters by their names with ``hp_`` before, and
        ``final_<split>_<name>`` and ``best_<split>_<name>``.

        Raises:
            StoreError: the folder holds no study, or cannot be read.
        """
        import pandas as pd

        self.declaration()
        rows: list[dict[str, Any]] = []
        for entry in self.ledger():
            found = self.store.read(entry.trial_hash, metrics=False)
            row: dict[str, Any] = {
                "problem": entry.problem,
                "algorithm": entry.algorithm,
                "role": entry.role,
                "index": entry.index,
                "seed": entry.seed,
                "trial_hash": entry.trial_hash,
            }
            row |= {f"hp_{name}": value for name, value in entry.hyperparameters.items()}
            if isinstance(found, Run):
                row |= {"status": str(found.status), "reason": found.reason, "steps": found.steps}
                row["training_seconds"] = found.training_seconds.wall
                row |= {f"final_{name}": value for name, value in found.final.items()}
                row |= {f"best_{name}": value for name, value in found.best.items()}
            else:
                row["status"] = "missing" if found is None else "damaged"
                row["reason"] = "" if found is None else found.reason
            rows.append(row)
        more = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
        return pd.DataFrame(rows, columns=[*COLUMNS, *sorted(more, key=_group)])

    def __repr__(self) -> str:
        """One line: where it is, and how many trials are planned and recorded."""
        try:
            entries = self.ledger()
            names = set(self.store.hashes())
            done = sum(entry.trial_hash in names for entry in entries)
            what = f"{self.declaration()['name']}, {done} of {len(entries)} planned trials recorded"
        except StoreError as error:
            what = str(error)
        return f"<StudyFolder {self.path}: {what}>"

    def _repr_html_(self) -> str:
        """Runs by problem and algorithm, for notebooks."""
        try:
            frame = self.frame()
        except StoreError:
            return f"<p>{escape(repr(self)[1:-1])}</p>"
        counts = frame.groupby(["problem", "algorithm", "role", "status"], sort=False).size()
        table = counts.rename("trials").reset_index().to_html(index=False)
        return f"<p>{escape(repr(self)[1:-1])}</p>{table}"

    def write_declaration(self, declaration: Mapping[str, Any]) -> None:
        """Keep the resolved declaration, creating the folder; raises StoreError."""
        self._write("study.json", {**declaration, "digest": digest_of(declaration)})

    def declaration(self) -> dict[str, Any]:
        """The resolved declaration; raises StoreError where the folder holds no study.

        A key that it should have and has not raises StoreError too, when it is asked for.
        """
        content = self._read("study.json")
        if not isinstance(content, dict):
            raise self._damaged("study.json", "no table")
        self._check_digest("study.json", content.pop("digest", None), content)
        missing = [word for word in DECLARED if word not in content]
        if missing:
            raise self._damaged("study.json", f"no {missing[0]!r} in it")
        try:
            values = check_study(content)
        except SchemaError as error:
            raise self._damaged("study.json", str(error)) from None

        def refuse(reason: str) -> NoReturn:
            raise self._damaged("study.json", reason)

        table: Table = Table.of(values, refuse)
        return table

    def write_ledger(self, entries: Sequence[Entry]) -> None:
        """Keep the entries, in order; raises StoreError."""
        values = [asdict(entry) for entry in entries]
        self._write("ledger.json", {"entries": values, "digest": digest_of({"entries": values})})

    def ledger(self) -> list[Entry]:
        """All entries, tuning first; empty before the first trial was planned."""
        if not (self.path / "ledger.json").exists():
            return []
        content = self._read("ledger.json")
        if isinstance(content, dict) and "entries" in content:
            self._check_digest("ledger.json", content.pop("digest", None), content)
            content = content["entries"]
        try:
            return [Entry(**values) for values in check_entries(content, self._spaces())]
        except SchemaError as error:
            raise self._damaged("ledger.json", str(error)) from None

    def _spaces(self) -> dict[str, Mapping[str, Any]]:
        """Search spaces by label; empty where the declaration cannot be read."""
        try:
            algorithms = self.declaration()["algorithms"]
        except StoreError:
            return {}
        return {algorithm["label"]: algorithm.get("space", {}) for algorithm in algorithms}

    def _write(self, name: str, content: Any) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json_atomically(self.path / name, content)
        except OSError as error:
            raise StoreError(explain(error, self.path)) from error

    def _read(self, name: str) -> Any:
        path = self.path / name
        try:
            return read_json(path)
        except FileNotFoundError:
            raise StoreError(
                f"{self.path} holds no study ({name} is missing): "
                "give the folder that `optiscope bench` printed"
            ) from None
        except OSError as error:
            raise StoreError(explain(error, path)) from error
        except SchemaError as error:
            raise self._damaged(name, str(error)) from error

    def _check_digest(self, name: str, digest: Any, content: dict[str, Any]) -> None:
        if digest is not None and digest != digest_of(content):
            raise self._damaged(name, "it was changed after it was written")

    def _damaged(self, name: str, reason: str) -> StoreError:
        return StoreError(
            f"{self.path / name} is damaged ({reason}): run `optiscope bench` again with the "
            "study's file and this folder, no record is lost"
        )


def _group(column: str) -> tuple[int, str]:
    """Hyperparameters first, then final and best values."""
    return ("hp_", "final_", "best_").index(column[: column.index("_") + 1]), column
