"""A run as the bytes of two files, ``run.json`` and ``metrics.parquet``, and back.

``run.json`` holds everything but the curves, its own SHA-256 and that of ``metrics.parquet``, so
that what was truncated or edited is known. The digest is checked before anything else looks at the
content, and the content is checked against the schema before a run is made of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from optiscope.errors import shorten
from optiscope.records.run import Measurement, Run
from optiscope.records.schema import SchemaError, check_run, parse_json
from optiscope.records.trial import Trial, canonical_json

__all__ = ["METRICS_SCHEMA", "RecordError", "digest_of", "metrics_table", "read_record"]

METRICS_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("epoch", pa.float64()),
        ("split", pa.string()),
        ("name", pa.string()),
        ("value", pa.float64()),
    ]
)
MOST_MEASUREMENTS = 2**24
"""Rows of one run's metrics; a few kilobytes of Parquet can announce billions."""
LARGEST_METRICS = 2**31
"""Bytes that one run's metrics may unpack to."""


class RecordError(ValueError):
    """What is wrong with a record, in one line."""


@dataclass(frozen=True)
class Header:
    """What ``run.json`` says: the run without its curves, and the digest of these."""

    run: Run
    metrics_sha256: str


def read_record(
    run_json: bytes,
    metrics: Callable[[], bytes] | None,
    trial_hash: str,
    *,
    only_check: bool = False,
) -> Run:
    """The run that two files hold.

    Args:
        run_json: content of ``run.json``.
        metrics: reads the content of ``metrics.parquet``; None for a run without its curves, whose
            file is then neither read nor checked.
        trial_hash: hash of the trial whose record this should be.
        only_check: compare the curves with their digest, and leave them out.

    Raises:
        RecordError: the content was changed, is none of a record, or of another trial's.
        OSError: what ``metrics`` raises.
    """
    header = _header(run_json)
    found = header.run.trial.hash
    if found != trial_hash:
        raise RecordError(f"holds the record of another trial, {found}")
    if metrics is None:
        return header.run
    content = metrics()
    if hashlib.sha256(content).hexdigest() != header.metrics_sha256:
        raise RecordError("metrics.parquet was changed after it was written")
    if only_check:
        return header.run
    return Run(**{**vars(header.run), "metrics": _measurements(content)})


def metrics_table(metrics: Sequence[Measurement]) -> pa.Table:
    """The metrics of a run as they are stored."""
    columns = zip(*metrics, strict=True) if metrics else ([] for _ in METRICS_SCHEMA)
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, METRICS_SCHEMA, strict=True)],
        schema=METRICS_SCHEMA,
    )


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a table, in hexadecimal digits."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _header(run_json: bytes) -> Header:
    try:
        content = parse_json(run_json)
        if not isinstance(content, dict):
            raise SchemaError("no table")
        for key in ("digest", "metrics_sha256"):
            if not isinstance(content.get(key), str):
                raise SchemaError(f"no {key!r} in it")
        if content.pop("digest") != digest_of(content):
            raise RecordError("run.json was changed after it was written")
    except SchemaError as error:
        raise RecordError(f"not a run record ({error})") from None
    sha256 = content.pop("metrics_sha256")
    try:  # whole, as its digest says
        unknown = Trial.unknown_fields(content["trial"])
        if unknown:
            raise SchemaError(f"trial has the unknown field {shorten(unknown[0])}")
        return Header(Run.from_dict(check_run(content)), sha256)
    except (SchemaError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = error if isinstance(error, SchemaError) else shorten(str(error))
        raise RecordError(f"written by another version of optiscope: {reason}") from None


def _measurements(content: bytes) -> list[Measurement]:
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            metadata = file.metadata
            groups = [metadata.row_group(g).total_byte_size for g in range(metadata.num_row_groups)]
            if metadata.num_rows > MOST_MEASUREMENTS or sum(groups) > LARGEST_METRICS:
                raise RecordError(f"metrics.parquet announces {metadata.num_rows:,} measurements")
            if not file.schema_arrow.equals(METRICS_SCHEMA):
                raise RecordError("metrics.parquet has other columns than metrics have")
            table = file.read()
    except RecordError:
        raise
    except Exception as error:  # Arrow raises many kinds
        reason = shorten(" ".join(str(error).split()))
        raise RecordError(f"metrics.parquet cannot be read ({reason})") from None
    if any(column.null_count for column in table.columns):
        raise RecordError("metrics.parquet has empty cells")
    return [Measurement(*row) for row in zip(*(c.to_pylist() for c in table.columns), strict=True)]
