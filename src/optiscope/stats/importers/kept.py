"""Imported runs beside a study's own, in stores of their own, one per source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from optiscope.records import Run, RunStore, Status, StudyFolder

__all__ = ["imported_runs", "keep_imported"]

Curve = frozenset[tuple[float, str, str, str]]


def keep_imported(folder: StudyFolder, runs: Iterable[Run]) -> int:
    """Store imported runs in a study's folder and return how many were new.

    They enter neither the ledger nor any claim: figures may show them beside the study's runs.
    A run whose trial and measurements are there already, from whatever source, is not new. Two
    runs of one trial with different measurements are both kept. A run that ended before its
    horizon makes room for one that goes on from it.

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
        new += _keep(folder, run)
    return new


def imported_runs(folder: StudyFolder, *, metrics: bool = True) -> list[Run]:
    """All imported runs of a study that can be read, by source; empty where there are none."""
    found = (run for store in _stores(folder) for run in store.scan(metrics=metrics))
    return [run for run in found if isinstance(run, Run)]


def _keep(folder: StudyFolder, run: Run) -> bool:
    """Store one run unless it is there; whether it was new."""
    curve = _curve(run)
    for store in _stores(folder):
        there = store.read(run.trial.hash)
        if not isinstance(there, Run):
            continue
        before = _curve(there)
        same_source = there.imported == run.imported
        if before == curve:
            if same_source and there.status is not run.status:  # read by an older version
                _replace(store, run)
            return False
        if run.status is Status.INTERRUPTED and curve < before:
            return False
        if there.status is Status.INTERRUPTED and before < curve and same_source:
            _replace(store, run)
            return True
    for store in _places(folder, run.imported or ""):
        if not isinstance(store.read(run.trial.hash, metrics=False), Run):
            store.write(run)
            return True
    raise AssertionError("there is always another place")


def _replace(store: RunStore, run: Run) -> None:
    store.set_aside(run.trial.hash, even_good=True)
    store.write(run)


def _curve(run: Run) -> Curve:
    """What a run measured, comparable also where values are no numbers."""
    return frozenset((float(m.epoch), m.split, m.name, repr(float(m.value))) for m in run.metrics)


def _stores(folder: StudyFolder) -> list[RunStore]:
    root = _root(folder)
    return [RunStore(p) for p in sorted(root.iterdir()) if p.is_dir()] if root.is_dir() else []


def _places(folder: StudyFolder, source: str) -> Iterator[RunStore]:
    """The store of a source, and further ones for runs of a trial that it holds already."""
    name = re.sub(r"[^\w.-]+", "-", source).lstrip(".")[:200] or "unnamed"
    yield RunStore(_root(folder) / name)
    for number in count(2):
        yield RunStore(_root(folder) / f"{name}-{number}")


def _root(folder: StudyFolder) -> Path:
    return folder.path / "imported"
