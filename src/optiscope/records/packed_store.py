"""Segments: many run records in two Parquet files that never change.

Writers keep writing a folder per run, which survives a crash at any moment. Thousands of folders
are slow to read and to copy, so they can be packed, as Git packs its loose objects. A segment is a
pair of files in ``segments/``, each named by the SHA-256 of its content:

- ``DIGEST.runs.parquet``: a row per run with ``hash``, ``run`` (the bytes of its ``run.json``) and
  flat columns for other programs: problem, optimizer, seed, status, final values, ...
- ``DIGEST.metrics.parquet``: a row per run with ``hash`` and ``metrics`` (the bytes of its
  ``metrics.parquet``); the first file names it.

Verbatim bytes keep the digest of every record valid. A file is checked against its name before it
is parsed; the file of metrics is not touched where only summaries are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from optiscope.atomic_file import commit, draft
from optiscope.errors import shorten

__all__ = [
    "FOLDER",
    "METRICS",
    "RUNS",
    "PackedRecord",
    "PackedStore",
    "SegmentError",
    "metrics_path_of",
    "write_segment",
]

FOLDER = "segments"
"""Name of the folder of segments beside the folders of single runs."""
VERSION = "1"
ROWS_IN_GROUP = 64
"""Runs that are decompressed together when one of them is read."""
CACHED_BYTES = 256 * 2**20
"""Bytes of decompressed row groups that are kept at hand."""
LARGEST_GROUP = 2**31
"""Bytes that a row group may unpack to."""
NAME_DIGITS = 32
"""Hexadecimal digits of a digest that name a file."""
RUNS, METRICS = ".runs.parquet", ".metrics.parquet"


class SegmentError(ValueError):
    """What is wrong with a segment, in one line.

    Attributes:
        path: its file.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path = path


@dataclass(frozen=True)
class PackedRecord:
    """A record as bytes: those of its ``run.json`` and of its ``metrics.parquet``."""

    trial_hash: str
    run: bytes
    metrics: bytes


class PackedStore:
    """The segments in one folder, read only.

    Files are looked at when they are first needed, and anew where one is gone: another process may
    have packed again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._segments: dict[str, _Segment] | None = None

    def hashes(self) -> set[str]:
        """Hashes of all packed records of segments that can be trusted."""
        return {found for segment in self.segments() for found in segment.hashes}

    def segments(self) -> list[_Segment]:
        """Segments that can be trusted, in order of name."""
        return [segment for segment in self._opened() if not segment.damage]

    def damaged(self) -> list[SegmentError]:
        """What is wrong with segments that cannot be trusted."""
        return [SegmentError(s.path, s.damage) for s in self._opened() if s.damage]

    def run_bytes(self, trial_hash: str) -> bytes | None:
        """Bytes of a record's ``run.json``; None where it is not packed.

        Raises:
            SegmentError: the segment was changed since it was first looked at.
        """
        segment = self._holder(trial_hash)
        return None if segment is None else segment.cell("run", trial_hash)

    def metrics_bytes(self, trial_hash: str) -> bytes:
        """Bytes of a packed record's ``metrics.parquet``.

        Raises:
            SegmentError: the file of metrics is missing or was changed.
            KeyError: the record is not packed.
        """
        segment = self._holder(trial_hash)
        if segment is None:
            raise KeyError(trial_hash)
        return segment.cell("metrics", trial_hash)

    def refresh(self, *, even_if_equal: bool = False) -> None:
        """Look at the folder anew where it holds other segments than before."""
        if even_if_equal or (self._segments is not None and self._names() != set(self._segments)):
            self._segments = None

    def _names(self) -> set[str]:
        return {path.name for path in self.folder.glob(f"*{RUNS}")}

    def _holder(self, trial_hash: str) -> _Segment | None:
        for _ in range(2):
            for segment in self.segments():
                if trial_hash in segment.hashes:
                    return segment
            self.refresh()  # another process may have packed it since
        return None

    def _opened(self) -> list[_Segment]:
        if self._segments is None:
            self._segments = {}
            if self.folder.is_dir():
                for path in sorted(self.folder.glob(f"*{RUNS}")):
                    with contextlib.suppress(FileNotFoundError):  # packed again meanwhile
                        self._segments[path.name] = _Segment(path)
        return list(self._segments.values())


def write_segment(folder: Path, records: Sequence[PackedRecord]) -> Path:
    """Write ``records`` as one segment, and read it back.

    The file of metrics is in place before the one that names it, and both are on disk and compared
    with what was given before this returns. Equal records make equal files.

    Returns:
        The file of runs.

    Raises:
        OSError: the folder cannot be written.
        SegmentError: what was written cannot be read back.
    """
    records = sorted(records, key=lambda record: record.trial_hash)
    hashes = pa.array([record.trial_hash for record in records], pa.string())
    metrics = pa.table({"hash": hashes, "metrics": _binary(r.metrics for r in records)})
    metrics_path = _write(folder, metrics, METRICS, {})
    flat = [_flat(json.loads(record.run)) for record in records]
    verbatim = {"hash": hashes, "run": _binary(record.run for record in records)}
    columns = {**verbatim, **dict(_columns(flat))}
    named = {"metrics": metrics_path.name}
    path = _write(folder, pa.table(columns), RUNS, named)
    segment = _Segment(path)
    if segment.damage:
        raise SegmentError(path, segment.damage)
    for record in records:
        same = segment.cell("run", record.trial_hash) == record.run
        if not same or segment.cell("metrics", record.trial_hash) != record.metrics:
            raise SegmentError(path, f"{record.trial_hash} is not what was written")
    return path


def metrics_path_of(path: Path) -> Path | None:
    """The file of metrics that a file of runs names; None where it cannot be read."""
    segment = _Segment(path)
    return None if segment.damage else segment.metrics_path


class _Segment:
    """A pair of files; ``damage`` says why it cannot be trusted, or is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hashes: dict[str, int] = {}
        self.damage = ""
        self.metrics_path = path
        self._files: dict[str, pq.ParquetFile] = {}
        self._cache: OrderedDict[tuple[str, int], dict[str, bytes]] = OrderedDict()
        try:
            file = self._file("run")
            named = (file.schema_arrow.metadata or {}).get(b"metrics", b"").decode()
            if Path(named).name != named or not named.endswith(METRICS):
                raise SegmentError(path, "names no file of metrics")
            self.metrics_path = path.with_name(named)
            row = 0
            for batch in file.iter_batches(columns=["hash"]):
                for found in batch.column(0).to_pylist():
                    self.hashes[str(found)] = row
                    row += 1
        except SegmentError as error:
            self.damage = str(error)
        except FileNotFoundError:
            raise
        except Exception as error:  # Arrow raises many kinds
            self.damage = f"not a segment ({shorten(' '.join(str(error).split()))})"

    def cell(self, column: str, trial_hash: str) -> bytes:
        """The bytes of a record in a column (``run`` or ``metrics``); raises SegmentError."""
        path = self.path if column == "run" else self.metrics_path
        try:
            group = self._group(column, self.hashes[trial_hash] // ROWS_IN_GROUP)
            return group[trial_hash]
        except SegmentError:
            raise
        except FileNotFoundError:
            raise SegmentError(path, f"{path.name} is missing") from None
        except Exception as error:
            reason = shorten(" ".join(str(error).split()))
            raise SegmentError(path, f"not a segment ({reason})") from None

    def _group(self, column: str, number: int) -> dict[str, bytes]:
        key = (column, number)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        file = self._file(column)
        if file.metadata.row_group(number).total_byte_size > LARGEST_GROUP:
            raise SegmentError(self.path, "announces more than a segment holds")
        table = file.read_row_group(number, columns=["hash", column])
        names, cells = (c.to_pylist() for c in table.columns)
        group = dict(zip(names, cells, strict=True))
        self._cache[key] = group
        while len(self._cache) > 1 and self._cached_bytes() > CACHED_BYTES:
            self._cache.popitem(last=False)
        return group

    def _cached_bytes(self) -> int:
        return sum(len(cell) for group in self._cache.values() for cell in group.values())

    def _file(self, column: str) -> pq.ParquetFile:
        """The opened file of a column, compared with its name before it is parsed."""
        if column not in self._files:
            path = self.path if column == "run" else self.metrics_path
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if path.name.partition(".")[0] != digest[:NAME_DIGITS]:
                raise SegmentError(path, f"{path.name} was changed after it was written")
            self._files[column] = pq.ParquetFile(path)
        return self._files[column]


def _binary(cells: Iterable[bytes]) -> pa.Array:
    return pa.array(list(cells), pa.large_binary())


def _write(folder: Path, table: pa.Table, ending: str, named: Mapping[str, str]) -> Path:
    """Write a table into the file that its content names, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"optiscope_segment": VERSION, **named}
    with draft(folder) as partial:
        pq.write_table(
            table.replace_schema_metadata(metadata),
            partial,
            compression="zstd",
            compression_level=19,
            row_group_size=ROWS_IN_GROUP,
            use_dictionary=False,
            data_page_size=2**24,
        )
        with partial.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        path = folder / f"{digest[:NAME_DIGITS]}{ending}"
        commit(partial, path)
    return path


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """What other programs may ask of a run, one value per name."""
    trial, seconds = content["trial"], content["seconds"]
    training = [seconds[p] for p in ("data", "forward_backward", "optimizer") if p in seconds]
    return {
        "problem": trial["problem"],
        "optimizer": trial["optimizer"],
        "hyperparameters": json.dumps(trial["hyperparameters"], sort_keys=True),
        "seed": trial["seed"],
        "epochs": trial["epochs"],
        "batch_size": trial["batch_size"],
        "status": content["status"],
        "reason": content["reason"],
        "steps": content["steps"],
        "started": content["started"],
        "training_wall_seconds": float(sum(s["wall"] for s in training)),
        "training_cpu_seconds": float(sum(s["cpu"] for s in training)),
        **{f"final_{name}": float(value) for name, value in sorted(content["final"].items())},
        **{f"best_{name}": float(value) for name, value in sorted(content["best"].items())},
    }


def _columns(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, pa.Array]]:
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    for name in names:
        yield name, pa.array([row.get(name) for row in rows])
