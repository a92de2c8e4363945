"""Imported runs beside a study's own, in stores of their own, one per source."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from optiscope.records import Run, RunStore, StudyFolder

__all__ = ["imported_runs", "keep_imported"]


def keep_imported(folder: StudyFolder, runs: Iterable[Run]) -> int:
    """Store imported runs in a study's folder and return how many were new.

    They enter neither the ledger nor any claim: figures may show them beside the study's runs.

    Raises:
        StoreError: the folder cannot be written.
        ValueError: a run is not marked as imported.
    """
    new = 0
    for run in runs:
        if run.imported is None:
            raise ValueError(
                f"run {run.trial.hash} was not imported: the study's own runs belong to its store"
            )
        store = RunStore(_root(folder) / re.sub(r"[^\w.-]+", "-", run.imported))
        new += not store.path(run.trial.hash).exists()
        store.write(run)
    return new


def imported_runs(folder: StudyFolder, *, metrics: bool = True) -> list[Run]:
    """All imported runs of a study that can be read, by source; empty where there are none."""
    root = _root(folder)
    sources = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    found = (run for source in sources for run in RunStore(source).scan(metrics=metrics))
    return [run for run in found if isinstance(run, Run)]


def _root(folder: StudyFolder) -> Path:
    return folder.path / "imported"
