"""Packing: thousands of folders of single runs into a few immutable files, and back.

New files are on disk and were read back before an old one is removed, so that a record is in two
places or in one, never in none, whenever the process is killed. Readers prefer the folder.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optiscope.records.packed_store import (
    METRICS,
    RUNS,
    SegmentError,
    metrics_path_of,
    write_segment,
)
from optiscope.records.run import Run, Status
from optiscope.records.store_error import StoreError, explain

if TYPE_CHECKING:
    from optiscope.records.store import RunStore

__all__ = ["Packing", "compact", "unpack"]

MOST_IN_SEGMENT = 20_000
"""Runs; their bytes are in memory while a segment is written."""
ABANDONED_SECONDS = 3600.0
"""Age at which a file that nothing names has no writer."""


@dataclass(frozen=True)
class Packing:
    """What packing or unpacking did.

    Attributes:
        moved: records that are in segments now and were not (unpacked: that have folders again).
        packed: records in segments.
        loose: records in folders only: all after unpacking; damaged ones, those of interrupted
            runs and those with weights after packing.
        segments: files of runs; each has a file of metrics beside it.
        beside: of the loose ones, those with weights or findings beside the record, for which
            segments have no place.
    """

    moved: int
    packed: int
    loose: int
    segments: tuple[Path, ...]
    beside: int = 0


def compact(store: RunStore) -> Packing:
    """Pack all whole records of ``store``.

    Records of interrupted runs, damaged ones and those with weights or findings stay as they are.

    Raises:
        StoreError: the folder cannot be written, a segment is damaged, or another process packs the
            same records.
    """
    packed = store.packed
    _require_whole(store)
    loose = {
        found
        for found in store.loose_hashes()
        if _is_final(store, found) and not _has_more(store, found)
    }
    old, before = packed.segments(), packed.hashes()
    if not loose and len(old) <= 1:
        return _packing(store, 0)
    hashes = sorted(loose | before)
    try:
        written = []
        for first in range(0, len(hashes), MOST_IN_SEGMENT):
            chunk = hashes[first : first + MOST_IN_SEGMENT]
            records = [store.record_bytes(found, loose=found in loose) for found in chunk]
            written.append(write_segment(packed.folder, records))
            for record in records:
                if record.trial_hash in loose:
                    store.drop(record)
        for segment in old:
            if segment.path not in written:
                segment.path.unlink(missing_ok=True)
                _remove_unless_named(segment.metrics_path, written)
        _remove_abandoned(packed.folder)
    except SegmentError as error:
        raise StoreError(f"{error.path}: {error}: it stays as it was, pack again") from error
    except OSError as error:
        raise StoreError(explain(error, packed.folder)) from error
    return _packing(store, len(loose - before))


def unpack(store: RunStore) -> Packing:
    """Give every packed record of ``store`` a folder again, and remove the segments.

    Raises:
        StoreError: the folder cannot be written, or a segment is damaged.
    """
    _require_whole(store)
    moved = 0
    try:
        for segment in store.packed.segments():
            for found in segment.hashes:
                if isinstance(store.loose(found), Run):
                    continue
                record = store.record_bytes(found, loose=False)
                if store.loose(found) is not None:
                    store.set_aside(found)
                store.restore(record)
                moved += 1
                if store.record_bytes(found, loose=True) != record:
                    raise SegmentError(store.path(found), "is not what was written")
        for segment in store.packed.segments():
            segment.path.unlink(missing_ok=True)
            segment.metrics_path.unlink(missing_ok=True)
        _remove_abandoned(store.packed.folder)
        with contextlib.suppress(OSError):  # not empty, or not there
            store.packed.folder.rmdir()
    except SegmentError as error:
        raise StoreError(f"{error.path}: {error}: the segments stay") from error
    except OSError as error:
        raise StoreError(explain(error, store.root)) from error
    return _packing(store, moved)


def _require_whole(store: RunStore) -> None:
    store.packed.refresh(even_if_equal=True)
    for error in store.packed.damaged():
        raise StoreError(f"{error.path} is damaged ({error}): move it away and go on without it")


def _is_final(store: RunStore, trial_hash: str) -> bool:
    run = store.loose(trial_hash)
    return isinstance(run, Run) and run.status is not Status.INTERRUPTED


def _packing(store: RunStore, moved: int) -> Packing:
    store.packed.refresh()
    packed = store.packed.hashes()
    loose = set(store.loose_hashes()) - packed
    beside = sum(_has_more(store, found) for found in loose)
    segments = tuple(s.path for s in store.packed.segments())
    return Packing(moved, len(packed), len(loose), segments, beside)


def _has_more(store: RunStore, trial_hash: str) -> bool:
    """Whether weights or findings stand beside a record."""
    return store.keeps_weights(trial_hash) or store.findings(trial_hash) is not None


def _remove_unless_named(metrics: Path, segments: Iterable[Path]) -> None:
    if metrics not in {metrics_path_of(path) for path in segments}:
        metrics.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed process left: partial files, and metrics that no segment names."""
    named = {metrics_path_of(path) for path in folder.glob(f"*{RUNS}")}
    for path in (*folder.glob(f"*{METRICS}"), *folder.glob(".partial-*")):
        with contextlib.suppress(FileNotFoundError):
            if path not in named and time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink()
