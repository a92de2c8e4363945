"""Runs from a CSV table: curves by epoch, or one row of final values per setting.

Columns, in any order; others are left alone:

- ``problem`` and ``optimizer``; ``experiment`` and ``framework`` tell apart what has both alike.
- ``epoch``: one row per epoch; without it, each row holds final values at the horizon.
- ``<split>_<acc|accuracy|loss>`` with an optional ``final_`` before and ``_mean`` or ``_std``
  behind, the split being ``train``, ``valid`` or ``test``. Standard deviations become metrics of
  their own, ``accuracy_std`` and ``loss_std``.
- ``best_test_acc_mean`` or ``best_test_acc_per_seed_mean`` and their like: best values.
- ``num_epochs`` or ``epochs``, ``batch_size``, ``lr``, ``seed``, and ``hyperparameters`` as JSON
  or in the words of DeepOBS's folder names, ``num_epochs__100__batch_size__128__lr__1.e-02``.
- ``n_runs`` or ``n_seeds``: over how many runs the row is a mean, and ``n_diverged`` or
  ``n_aborted_or_diverged``: how many of them diverged.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optiscope.records import Measurement, Run, Status
from optiscope.stats.importers.foreign_run import (
    SEVERAL_SEEDS,
    UNKNOWN_STEP,
    ImportFormatError,
    foreign_run,
)

__all__ = ["import_table", "parse_settings"]

_METRIC = re.compile(r"^(?:final_)?(train|valid|test)_(acc|accuracy|loss)(?:_(mean|std))?$")
_BEST = re.compile(r"^best_(train|valid|test)_(acc|accuracy|loss)(?:_per_seed)?_mean$")
_FULL = {"acc": "accuracy", "accuracy": "accuracy", "loss": "loss"}
_IDENTITY = (
    "experiment", "framework", "problem", "optimizer", "hyperparameters", "lr", "batch_size",
    "num_epochs", "epochs", "seed", "n_runs", "n_seeds",
)  # fmt: skip

Row = Mapping[str, str]


def import_table(path: Path | str, *, source: str | None = None) -> list[Run]:
    """Runs in a CSV file, one per setting, in order of first appearance.

    Args:
        path: of the file.
        source: where the numbers came from, in words; the file's name by default.

    Raises:
        ImportFormatError: the file cannot be read, or lacks a column that is needed.
    """
    file = Path(path)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except OSError as error:
        raise ImportFormatError(f"cannot read {file}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ImportFormatError(f"{file} is no CSV table: {error}") from None
    missing = [name for name in ("problem", "optimizer") if name not in columns]
    if not missing and not any(_METRIC.match(name) for name in columns):
        missing = ["test_accuracy or test_loss"]
    if missing:
        raise ImportFormatError(f"{file} has no column {missing[0]}: its columns are {columns}")
    groups: dict[tuple[str, ...], list[tuple[int, Row]]] = {}
    for line, row in enumerate(rows, start=2):
        key = tuple(row.get(name) or "" for name in _IDENTITY)
        groups.setdefault(key, []).append((line, row))
    found = []
    for lines in groups.values():
        _refuse_repeated(file, lines)
        try:
            found.append(_run([row for _, row in lines], source or file.name))
        except ValueError as error:
            raise ImportFormatError(f"{file}, line {lines[0][0]}: {error}") from None
    return found


def _refuse_repeated(file: Path, lines: list[tuple[int, Row]]) -> None:
    """Two rows of one run and epoch are two runs that the table does not tell apart."""
    seen: dict[str, int] = {}
    for line, row in lines:
        epoch = (row.get("epoch") or "").strip()
        if epoch in seen:
            at = f"epoch {epoch}" if epoch else "final values"
            raise ImportFormatError(
                f"{file}, lines {seen[epoch]} and {line}: {at} of one run twice; tell runs apart "
                "by a column seed, experiment or hyperparameters"
            )
        seen[epoch] = line


def parse_settings(text: str) -> dict[str, Any]:
    """Settings written as JSON, or as ``name__value__name__value`` in DeepOBS's folder names.

    Raises:
        ValueError: neither of the two.
    """
    text = text.strip()
    if not text:
        return {}
    if text.startswith("{"):
        return dict(json.loads(text))
    words = text.split("__")
    if len(words) % 2:
        raise ValueError(f"hyperparameters must be JSON or name__value pairs, got {text!r}")
    return {name: _value(v) for name, v in zip(words[::2], words[1::2], strict=True)}


def _run(rows: list[Row], source: str) -> Run:
    first = rows[0]
    settings = parse_settings(first.get("hyperparameters") or "")
    named = settings.pop("num_epochs", None), settings.pop("batch_size", None)
    if first.get("lr"):
        settings["lr"] = _value(first["lr"])
    settings = {name: value for name, value in settings.items() if value is not None}
    last = max((float(row["epoch"]) for row in rows if row.get("epoch")), default=None)
    epochs = _first_number(first.get("num_epochs"), first.get("epochs"), named[0], last)
    batch_size = _first_number(first.get("batch_size"), named[1])
    if epochs is None or batch_size is None:
        lacking = "num_epochs" if epochs is None else "batch_size"
        raise ValueError(f"no {lacking} in a column of its own, nor among the hyperparameters")
    count = _first_number(first.get("n_runs"), first.get("n_seeds"))
    words = [source, first.get("framework"), first.get("experiment")]
    origin = ", ".join(word for word in words if word)
    seed = _first_number(first.get("seed"))
    diverged = _first_number(first.get("n_diverged"), first.get("n_aborted_or_diverged")) or 0
    reason = f"imported from {origin}" + (f": mean over {int(count)} runs" if count else "")
    if diverged:
        reason += f", of which {int(diverged)} diverged"
    curves = any(row.get("epoch") for row in rows)
    return foreign_run(
        source=origin,
        problem=first["problem"],
        optimizer=first["optimizer"],
        hyperparameters=settings,
        seed=SEVERAL_SEEDS if seed is None else int(seed),
        epochs=int(epochs),
        batch_size=int(batch_size),
        metrics=[m for row in rows for m in _measurements(row, float(epochs))],
        status=Status.DIVERGED if diverged and diverged == count else Status.FINISHED,
        reason=reason,
        # Final values alone do not tell the best ones.
        best=_best(first) or (None if curves else {}),
        environment={"runs": None if count is None else int(count), "seeds": first.get("seeds")},
    )


def _measurements(row: Row, horizon: float) -> list[Measurement]:
    epoch = float(row["epoch"]) if row.get("epoch") else horizon
    found = []
    for column, text in row.items():
        match = _METRIC.match(column or "")
        if match and text:
            name = _FULL[match[2]] + ("_std" if match[3] == "std" else "")
            found.append(Measurement(UNKNOWN_STEP, epoch, match[1], name, float(text)))
    return found


def _best(row: Row) -> dict[str, float]:
    matches = ((_BEST.match(column or ""), text) for column, text in row.items())
    return {f"{m[1]}_{_FULL[m[2]]}": float(text) for m, text in matches if m and text}


def _value(text: Any) -> Any:
    words = {"None": None, "": None, "True": True, "False": False, "true": True, "false": False}
    if text in words:
        return words[text]
    try:
        number = float(text)
    except (TypeError, ValueError):
        return text
    return int(number) if number.is_integer() and re.fullmatch(r"[+-]?\d+", str(text)) else number


def _first_number(*candidates: Any) -> float | None:
    for candidate in candidates:
        value = _value(candidate) if isinstance(candidate, str) else candidate
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None
