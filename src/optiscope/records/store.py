"""A folder of run records: written whole or not at all, checked when read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from optiscope import atomic_file
from optiscope.atomic_file import write_json_atomically
from optiscope.records.compact import unpack
from optiscope.records.findings import FILE as FINDINGS
from optiscope.records.findings import read_findings
from optiscope.records.kept_weights import FOLDER as WEIGHTS
from optiscope.records.packed_store import FOLDER as SEGMENTS
from optiscope.records.packed_store import PackedRecord, PackedStore, SegmentError
from optiscope.records.record_file import RecordError, metrics_table, read_record
from optiscope.records.record_file import digest_of as _digest
from optiscope.records.run import Run, Status
from optiscope.records.store_error import StoreError, explain

__all__ = ["DamagedRecord", "RunStore", "StoreError", "explain"]

ABANDONED_SECONDS = 3600.0  # a write takes milliseconds: a partial record this old has no writer

UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""Errors of the system, not of a record: nothing is known of the record then."""


@dataclass(frozen=True)
class DamagedRecord:
    """A record that is there but cannot be trusted."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"damaged record {self.path}: {self.reason}"


class RunStore:
    """Run records under ``root``, one folder per trial, named by the trial's hash, or packed.

    A record is written into a hidden folder, synced to disk and renamed, so that it appears whole
    or not at all. ``run.json`` carries its own SHA-256 and that of ``metrics.parquet``: a
    truncated or edited record reads as :class:`DamagedRecord`. Records in segments (see
    ``optiscope.records.packed_store``) are read alike; of a record in both places, the folder
    counts.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.packed = PackedStore(self.root / SEGMENTS)

    def check_writable(self) -> None:
        """Make the folder and write into it, to learn before a long run that it cannot be.

        Raises:
            StoreError: as :meth:`write` would.
        """
        probe = self.root / f".partial-{uuid.uuid4().hex}"
        try:
            probe.mkdir(parents=True)
            probe.rmdir()
        except OSError as error:
            raise StoreError(explain(error, self.root)) from error

    def path(self, trial_hash: str) -> Path:
        """Folder of the record of a trial, there or not."""
        return self.root / trial_hash

    def hashes(self) -> list[str]:
        """Hashes of all records present, in alphabetical order."""
        self.packed.refresh()
        return sorted({*self.loose_hashes(), *self.packed.hashes()})

    def loose_hashes(self) -> list[str]:
        """Hashes of the records that have a folder each, in alphabetical order."""
        if not self.root.is_dir():
            return []
        with os.scandir(self.root) as entries:
            names = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
        return sorted(name for name in names if name != SEGMENTS)

    def write(
        self,
        run: Run,
        weights: Path | None = None,
        findings: Sequence[Mapping[str, Any]] | None = None,
    ) -> Path:
        """Store a run and return its folder.

        ``weights``, a folder on the same file system, becomes part of it where it is there;
        ``findings`` of a watch are kept beside the record.

        A record of the same trial that is already there is kept, and the new one dropped; only
        a damaged record and that of an interrupted run make room.

        Raises:
            StoreError: the folder cannot be written (full disk, no permission).
        """
        target = self.path(run.trial.hash)
        packed = self._read_packed(run.trial.hash, metrics=False, only_check=True)
        good = isinstance(packed, Run) and packed.status is not Status.INTERRUPTED
        if good and not os.path.lexists(target):
            return target
        partial = self.root / f".partial-{run.trial.hash}-{uuid.uuid4().hex}"
        try:
            partial.mkdir(parents=True)
            metrics = partial / "metrics.parquet"
            pq.write_table(metrics_table(run.metrics), metrics, compression="zstd")
            atomic_file.sync(metrics)
            content = run.to_dict() | {"metrics_sha256": _sha256(metrics)}
            content["digest"] = _digest(content)
            write_json_atomically(partial / "run.json", content)
            if weights is not None and weights.is_dir():
                os.rename(weights, partial / WEIGHTS)
            if findings is not None:
                write_json_atomically(partial / FINDINGS, [dict(f) for f in findings])
            self._make_room(run.trial.hash)
            _rename(partial, target)
        except OSError as error:
            raise StoreError(explain(error, self.root)) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def read(self, trial_hash: str, *, metrics: bool = True) -> Run | DamagedRecord | None:
        """The run of a trial, or what is wrong with its record, or None where there is none.

        Args:
            trial_hash: the trial's hash.
            metrics: whether the run is to have its curves. Their file is checked against its digest
                only if it is read; otherwise it is only seen to be there and to have its end.
        """
        return self._find(trial_hash, metrics=metrics, only_check=False)

    def check(self, trial_hash: str) -> Run | DamagedRecord | None:
        """As :meth:`read` without metrics, but their file is compared with its digest."""
        return self._find(trial_hash, metrics=True, only_check=True)

    def _find(
        self, trial_hash: str, *, metrics: bool, only_check: bool
    ) -> Run | DamagedRecord | None:
        how = {"metrics": metrics, "only_check": only_check}
        loose = self._read(self.path(trial_hash), trial_hash, **how)
        if isinstance(loose, Run):
            return loose
        packed = self._read_packed(trial_hash, **how)
        return packed if loose is None or isinstance(packed, Run) else loose

    def _read_packed(
        self, trial_hash: str, *, metrics: bool, only_check: bool
    ) -> Run | DamagedRecord | None:
        """The run of a packed record; where segments are damaged, any unknown record may be one."""
        for last in (False, True):
            try:
                run_json = self.packed.run_bytes(trial_hash)
                if run_json is None:
                    break
                read = (lambda: self.packed.metrics_bytes(trial_hash)) if metrics else None
                return read_record(run_json, read, trial_hash, only_check=only_check)
            except SegmentError as error:
                if last:
                    return DamagedRecord(error.path, str(error))
            except RecordError as error:
                return DamagedRecord(self.packed.folder / trial_hash, str(error))
            except OSError as error:
                raise StoreError(explain(error, self.root)) from error
            self.packed.refresh(even_if_equal=True)  # packed again by another process
        damaged = self.packed.damaged()
        return DamagedRecord(damaged[0].path, str(damaged[0])) if damaged else None

    def _read(
        self, folder: Path, trial_hash: str, *, metrics: bool, only_check: bool = False
    ) -> Run | DamagedRecord | None:
        if not os.path.lexists(folder):
            return None
        curves = folder / "metrics.parquet"
        try:
            run_json = _content(folder / "run.json")
            if not metrics and not _is_whole_parquet(curves):
                return DamagedRecord(folder, "metrics.parquet was changed after it was written")
            read_curves = (lambda: _content(curves)) if metrics else None
            return read_record(run_json, read_curves, trial_hash, only_check=only_check)
        except RecordError as error:
            return DamagedRecord(folder, str(error))
        except FileNotFoundError as error:
            return DamagedRecord(folder, f"{Path(error.filename).name} is missing")
        except OSError as error:
            if error.errno in UNREADABLE:
                raise StoreError(explain(error, folder)) from error
            return DamagedRecord(folder, f"not a run record ({error.strerror or error})")

    def outcome(
        self, trial_hash: str, say: Callable[[str], None], *, metrics: bool = True
    ) -> Run | None:
        """The run of a trial that need not run again: neither damaged nor interrupted.

        A damaged record, curves included, is set aside, which ``say`` is told of in a line.
        """
        found = self._find(trial_hash, metrics=True, only_check=not metrics)
        if isinstance(found, DamagedRecord):
            aside = self.set_aside(trial_hash)
            if aside is None:  # another process moved it, or replaced it with a good one
                return self.outcome(trial_hash, say, metrics=metrics)
            say(f"{found}; moved to {aside}, the trial runs again")
            return None
        interrupted = found is not None and found.status is Status.INTERRUPTED
        return None if interrupted else found

    def scan(self, *, metrics: bool = False) -> Iterator[Run | DamagedRecord]:
        """Every record, or what is wrong with it, in order of hash."""
        for trial_hash in self.hashes():
            found = self.read(trial_hash, metrics=metrics)
            if found is not None:
                yield found
        for segment in self.packed.damaged():
            yield DamagedRecord(segment.path, str(segment))

    def set_aside(self, trial_hash: str, *, even_good: bool = False) -> Path | None:
        """Move a damaged record into ``.damaged`` so that its trial can run again.

        Returns:
            Where it is now; None where another process moved it first, or put a good record in its
            place, which stays unless ``even_good``.
        """
        aside = self.root / ".damaged"
        for attempt in range(1000):
            target = aside / f"{trial_hash}-{attempt}"
            if not target.exists():
                break
        try:
            aside.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(self.path(trial_hash)) and not self._unpack(trial_hash, aside):
                return None
            os.rename(self.path(trial_hash), target)
            if not even_good and self._give_back(target, trial_hash):
                return None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(explain(error, self.root)) from error
        return target

    def loose(self, trial_hash: str) -> Run | DamagedRecord | None:
        """As :meth:`check`, of a record that has a folder."""
        return self._read(self.path(trial_hash), trial_hash, metrics=True, only_check=True)

    def findings(self, trial_hash: str) -> list[Mapping[str, Any]] | None:
        """What a watch found in a run, None where it was not watched."""
        return read_findings(self.path(trial_hash))

    def keeps_weights(self, trial_hash: str) -> bool:
        """Whether the folder of a record holds weights, which segments have no place for."""
        return (self.path(trial_hash) / WEIGHTS).is_dir()

    def record_bytes(self, trial_hash: str, *, loose: bool) -> PackedRecord:
        """The bytes of a record, in its folder or in a segment, checked against their digests.

        Raises:
            SegmentError: they do not fit.
        """
        if loose:
            folder = self.path(trial_hash)
            run, metrics = _content(folder / "run.json"), _content(folder / "metrics.parquet")
        else:
            run = self.packed.run_bytes(trial_hash) or b""
            metrics = self.packed.metrics_bytes(trial_hash)
        try:
            read_record(run, lambda: metrics, trial_hash, only_check=True)
        except RecordError as error:
            raise SegmentError(self.path(trial_hash), str(error)) from None
        return PackedRecord(trial_hash, run, metrics)

    def restore(self, record: PackedRecord) -> None:
        """Write the bytes of a record into its folder, whole or not at all; raises OSError."""
        partial = self.root / f".partial-{record.trial_hash}-{uuid.uuid4().hex}"
        try:
            partial.mkdir(parents=True)
            for name, content in (("run.json", record.run), ("metrics.parquet", record.metrics)):
                (partial / name).write_bytes(content)
                atomic_file.sync(partial / name)
            _rename(partial, self.path(record.trial_hash))
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def drop(self, record: PackedRecord) -> None:
        """Remove the folder of a record, unless it holds other bytes by now; raises OSError."""
        moved = self.root / f".partial-{record.trial_hash}-{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(record.trial_hash), moved)
            if _content(moved / "run.json") != record.run:
                _rename(moved, self.path(record.trial_hash))
        shutil.rmtree(moved, ignore_errors=True)

    def _unpack(self, trial_hash: str, aside: Path) -> bool:
        """Give packed records their folders again, so that one of them can be moved.

        Segments that are damaged are moved ``aside``. Returns whether the record has a folder now.
        """
        for segment in self.packed.damaged():
            with contextlib.suppress(FileNotFoundError):
                os.rename(segment.path, aside / segment.path.name)
        self.packed.refresh()
        if trial_hash in self.packed.hashes():
            unpack(self)
        return os.path.lexists(self.path(trial_hash))

    def sweep(self) -> None:
        """Remove what interrupted writers left behind, once it is too old to be still written."""
        for partial in self.root.glob(".partial-*"):
            try:
                age = time.time() - partial.stat().st_mtime
            except FileNotFoundError:
                continue
            if age > ABANDONED_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)

    def _make_room(self, trial_hash: str) -> None:
        """Move a record that a new one should replace out of its way."""
        found = self.read(trial_hash, metrics=False)
        if isinstance(found, DamagedRecord):
            self.set_aside(trial_hash)
        elif found is not None and found.status is Status.INTERRUPTED:
            old = self.root / f".partial-{trial_hash}-{uuid.uuid4().hex}"
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path(trial_hash), old)
                self._give_back(old, trial_hash)
            shutil.rmtree(old, ignore_errors=True)

    def _give_back(self, moved: Path, trial_hash: str) -> bool:
        """Undo a move where another process had replaced the record between look and move."""
        found = self._read(moved, trial_hash, metrics=False)
        good = isinstance(found, Run) and found.status is not Status.INTERRUPTED
        if good:
            _rename(moved, self.path(trial_hash))
        return good


def _rename(partial: Path, target: Path) -> None:
    atomic_file.sync(partial)
    try:
        os.rename(partial, target)
    except OSError as error:
        # Another process recorded the same trial first; records of one trial are equal.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not target.is_dir():
            raise
    atomic_file.sync(target.parent)


def _content(path: Path) -> bytes:
    """Bytes of a regular file; a pipe or a device would never end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise IsADirectoryError(errno.EISDIR, "not a regular file", str(path))
    return path.read_bytes()


def _is_whole_parquet(path: Path) -> bool:
    """Whether a file ends as a Parquet file does: all that is looked at where it is not read."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 4))
        return stream.read(4) == b"PAR1"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
