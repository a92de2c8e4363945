"""MLflow: a run with parameters, metrics and tags in a tracking store."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optiscope.records.exports.plain import finite, flat

__all__ = ["Run", "address"]

BATCH = 500
"""Metrics sent together; MLflow takes at most 1,000."""


def address(where: Path | str) -> str:
    """The tracking address: ``where`` if it is one, else a SQLite file (in) that place."""
    text = str(where)
    if re.match(r"[a-z+]{2,}:", text):
        return text
    path = Path(where).resolve()
    if path.suffix not in (".db", ".sqlite"):
        path.mkdir(parents=True, exist_ok=True)
        path /= "mlflow.db"
    return f"sqlite:///{path}"


class Run:
    """A run of the experiment ``group``; view it with ``mlflow ui --backend-store-uri ADDRESS``."""

    def __init__(
        self, where: Path | str, *, name: str, group: str, settings: Mapping[str, Any]
    ) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client = MlflowClient(address(where))
        known = self._client.get_experiment_by_name(group)
        artifacts = None if re.match(r"[a-z+]{2,}:", str(where)) else _artifacts(where)
        identifier = (
            known.experiment_id
            if known is not None
            else self._client.create_experiment(group, artifact_location=artifacts)
        )
        run = self._client.create_run(identifier, run_name=name)
        self.identifier: str = run.info.run_id
        self._waiting: list[Any] = []
        parameters = [Param(_name(k), str(v)[:6000]) for k, v in flat(settings).items()]
        for start in range(0, len(parameters), 100):
            self._client.log_batch(self.identifier, params=parameters[start : start + 100])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics, sent in batches."""
        now = int(time.time() * 1000)
        self._waiting += [self._metric(_name(k), v, now, step) for k, v in finite(values).items()]
        if len(self._waiting) >= BATCH:
            self._send()

    def note(self, name: str, text: str) -> None:
        """A text as a tag."""
        self._client.set_tag(self.identifier, _name(name), text[:5000])

    def finish(self, summary: Mapping[str, float], status: str) -> None:
        """Final values as metrics, the status as a tag, and the end of the run."""
        self.log(0, summary)
        self._send()
        self._client.set_tag(self.identifier, "status", status)
        ended = "FINISHED" if status in ("finished", "stopped") else "FAILED"
        self._client.set_terminated(self.identifier, ended)

    def _send(self) -> None:
        for start in range(0, len(self._waiting), BATCH):
            self._client.log_batch(self.identifier, metrics=self._waiting[start : start + BATCH])
        self._waiting.clear()


def _artifacts(where: Path | str) -> str:
    """A folder beside a local store: nothing is written into the current folder."""
    path = Path(where).resolve()
    folder = path.parent if path.suffix in (".db", ".sqlite") else path
    return (folder / "artifacts").as_uri()


def _name(text: str) -> str:
    """A name that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", text)[:250]
