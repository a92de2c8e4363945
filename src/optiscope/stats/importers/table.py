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

Cells may be separated by commas, semicolons or tabs; numbers have a decimal point. Rows belong to
one run where these columns have equal values, however they are written (``0.003``
and ``3e-3``, ``128`` and ``128.0``, keys of JSON in another order). Rows may stand in any order,
and several may share an epoch where no figure is stated twice. Accuracies and their deviations are
fractions. An empty cell was not measured; ``nan`` or ``inf`` is a value that was no number, and
the run counts as diverged. Columns that others use to tell runs apart (``run_id``, ``name``, or a
hyperparameter's such as ``momentum``) are not kept, but rows that differ there are never put
together. A run whose last epoch lies before ``num_epochs`` counts as interrupted.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optiscope.errors import shorten
from optiscope.records import Measurement, Run, Status, higher_is_better
from optiscope.records.trial import canonical_json
from optiscope.stats.importers.foreign_run import (
    SEVERAL_SEEDS,
    UNKNOWN_STEP,
    ImportFormatError,
    by_value,
    foreign_run,
    implausible,
    implausible_epoch,
    implausible_spread,
    plain_settings,
    read_number,
    whole_number,
)

__all__ = ["import_table", "parse_settings"]

_SPLIT = r"(train|val|valid|validation|test)"
_METRIC = re.compile(rf"^(?:final_)?{_SPLIT}_(acc|accuracy|loss)(?:_(mean|std))?$")
_BEST = re.compile(rf"^best_{_SPLIT}_(acc|accuracy|loss)(?:_per_seed)?_mean$")
_SPLITS = {"val": "valid", "validation": "valid"}
_STEPS = ("step", "_step", "global_step", "trainer/global_step", "iteration", "iter")
"""Columns of another time than epochs, which final values of a run have not."""
_APART = (
    "run", "run_id", "run_name", "name", "trial", "trial_id", "momentum", "weight_decay", "beta1",
    "beta2", "betas", "eps", "epsilon", "nesterov", "schedule",
)  # fmt: skip
"""Columns that are not kept, in which the rows of one run have one value."""
_FULL = {"acc": "accuracy", "accuracy": "accuracy", "loss": "loss"}
_OTHERS = (
    "experiment", "framework", "problem", "optimizer", "hyperparameters", "lr", "learning_rate",
    "batch_size",
    "num_epochs", "epochs", "seed", "seeds", "n_runs", "n_seeds", "n_diverged",
    "n_aborted_or_diverged", "epoch",
)  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """A row that is not blank: its line in the file, and its filled cells without blanks."""

    line: int
    cells: Mapping[str, str]

    def first(self, *names: str) -> str | None:
        """The cell of the first of these columns that is filled."""
        return next((self.cells[name] for name in names if name in self.cells), None)


@dataclass(frozen=True)
class _Identity:
    """Which run a row belongs to, by value."""

    origin: str
    problem: str
    optimizer: str
    settings: Mapping[str, Any]
    epochs: int | None
    batch_size: int
    seed: int

    @property
    def key(self) -> str:
        return canonical_json(vars(self))


@dataclass(frozen=True)
class _Figures:
    """What one row states: its epoch (None: at the horizon) and figures by (split, name)."""

    line: int
    epoch: int | None
    values: Mapping[tuple[str, str], float]
    best: Mapping[str, float]
    runs: int | None
    diverged: int
    apart: Mapping[str, Any]


def import_table(path: Path | str, *, source: str | None = None) -> list[Run]:
    """Runs in a CSV file, one per setting, in order of first appearance.

    Args:
        path: of the file.
        source: where the numbers came from, in words; the file's name by default.

    Raises:
        ImportFormatError: the file cannot be read, lacks a column that is needed, or holds what
            cannot be, with the line.
    """
    file = Path(path)
    groups: dict[str, tuple[_Identity, list[_Figures], _Row]] = {}
    for row in _rows(file):
        with _at(file, row.line):
            identity = _identity(row, source or file.name)
            figures = _figures(row, identity)
            _, before, _ = groups.setdefault(identity.key, (identity, [], row))
            before.append(figures)
    found: dict[tuple[str, str], int] = {}
    runs = []
    for identity, rows, first in groups.values():
        _refuse_repeated(file, rows)
        _refuse_mixed(file, rows)
        with _at(file, first.line):
            run = _run(identity, rows, first)
        # A horizon that is stated in some rows and follows from the epochs in others.
        line = found.setdefault((identity.origin, run.trial.hash), first.line)
        if line != first.line:
            raise _twice(file, line, first.line, "runs of one setting")
        runs.append(run)
    return runs


@contextmanager
def _at(file: Path, line: int) -> Iterator[None]:
    """Turn a ValueError about a row into an ImportFormatError with file and line."""
    try:
        yield
    except ValueError as error:
        raise ImportFormatError(f"{file}, line {line}: {error}") from None


def _rows(file: Path) -> list[_Row]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            stream.seek(0)
            reader = csv.reader(stream, delimiter=_delimiter(header))
            columns = [name.strip().casefold() for name in next(reader, [])]
            lines = [(reader.line_num, cells) for cells in reader]
    except OSError as error:
        raise ImportFormatError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ImportFormatError(
            f"{file} is no text in UTF-8: save it as a CSV file in UTF-8"
        ) from None
    except csv.Error as error:
        raise ImportFormatError(f"{file} is no CSV table: {error}") from None
    known = [c for c in columns if c in _OTHERS or _METRIC.match(c) or _BEST.match(c)]
    missing = [name for name in ("problem", "optimizer") if name not in columns]
    if not missing and not any(_METRIC.match(name) for name in columns):
        missing = ["test_accuracy or test_loss"]
    if missing:
        names = shorten(", ".join(columns))
        raise ImportFormatError(f"{file} has no column {missing[0]}: its columns are {names}")
    steps = next((name for name in _STEPS if name in columns), None)
    if steps is not None and "epoch" not in columns:
        raise ImportFormatError(
            f"{file} has a column {steps} and none called epoch: time is read in epochs, give each "
            "row its epoch, or one row of final values a run without the column"
        )
    if len(set(known)) < len(known):
        twice = next(name for name in known if known.count(name) > 1)
        raise ImportFormatError(f"{file} has two columns {twice}: keep one of them")
    rows = []
    for line, cells in lines:
        texts = [cell.strip() for cell in cells]
        if any(texts[len(columns) :]):
            raise ImportFormatError(
                f"{file}, line {line}: {len(texts)} cells under {len(columns)} columns: "
                "put cells that hold a comma in quotation marks"
            )
        filled = {name: text for name, text in zip(columns, texts, strict=False) if text}
        if filled:
            rows.append(_Row(line, filled))
    if not rows:
        raise ImportFormatError(f"{file} holds no row below its header: there is nothing to import")
    return rows


def _delimiter(header: str) -> str:
    """What separates the cells of a table, by its header."""
    return max(",;\t", key=header.count)


def _refuse_repeated(file: Path, rows: list[_Figures]) -> None:
    """A figure stated twice for one epoch: two runs that the table does not tell apart."""
    seen: dict[tuple[int | None, tuple[str, str]], int] = {}
    for row in rows:
        for name in row.values:
            line = seen.setdefault((row.epoch, name), row.line)
            if line != row.line:
                at = "final values" if row.epoch is None else f"epoch {row.epoch}"
                raise _twice(file, line, row.line, f"{at} of one run")


def _refuse_mixed(file: Path, rows: list[_Figures]) -> None:
    """Rows that look like one run, but for a column that is not kept."""
    seen: dict[str, tuple[Any, int]] = {}
    for row in rows:
        for name, value in row.apart.items():
            before, line = seen.setdefault(name, (value, row.line))
            if before != value:
                raise ImportFormatError(
                    f"{file}, lines {line} and {row.line}: two values of {name}, "
                    f"{shorten(before)} and {shorten(value)}, in rows of one setting; tell runs "
                    "apart by a column seed, experiment or hyperparameters"
                )


def _twice(file: Path, first: int, second: int, what: str) -> ImportFormatError:
    return ImportFormatError(
        f"{file}, lines {first} and {second}: {what} twice; tell runs apart "
        "by a column seed, experiment or hyperparameters"
    )


def parse_settings(text: str) -> dict[str, Any]:
    """Settings written as JSON, or as ``name__value__name__value`` in DeepOBS's folder names.

    Raises:
        ValueError: neither of the two, or a name stands twice.
    """
    text = text.strip()
    if not text:
        return {}
    if text.startswith("{"):
        try:
            pairs = json.loads(text, object_pairs_hook=list)
        except RecursionError:
            raise ValueError("hyperparameters are nested too deep") from None
        except ValueError as error:
            raise ValueError(f"hyperparameters are not JSON: {error}") from None
    else:
        words = text.split("__")
        if len(words) % 2:
            raise ValueError(
                f"hyperparameters must be JSON or name__value pairs, got {shorten(text)}"
            )
        pairs = list(zip(words[::2], words[1::2], strict=True))
    settings: dict[str, Any] = {}
    for name, value in pairs:
        key = name.strip()
        if key in settings:
            raise ValueError(f"hyperparameter {shorten(key)} stands twice")
        settings[key] = by_value(_table(value))
    return settings


def _table(value: Any) -> Any:
    """JSON objects inside of settings, which came as lists of pairs, as dictionaries."""
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        return {name: _table(item) for name, item in value}
    return [_table(item) for item in value] if isinstance(value, list) else value


def _identity(row: _Row, source: str) -> _Identity:
    for name in ("problem", "optimizer"):
        if name not in row.cells:
            raise ValueError(f"no {name}")
    settings = parse_settings(row.cells.get("hyperparameters", ""))
    horizon = settings.pop("num_epochs", None)
    epochs = _agreed("num_epochs", row.cells.get("num_epochs"), row.cells.get("epochs"), horizon)
    batch = settings.pop("batch_size", None)
    batch_size = _agreed("batch_size", row.cells.get("batch_size"), batch)
    if batch_size is None:
        raise ValueError("no batch_size in a column of its own, nor among the hyperparameters")
    settings = plain_settings(settings)
    lr = _agreed("lr", row.cells.get("lr"), row.cells.get("learning_rate"), settings.get("lr"))
    if lr is not None:
        if not isinstance(lr, int | float) or isinstance(lr, bool):
            raise ValueError(f"lr must be a number such as 0.003, got {shorten(lr)}")
        settings["lr"] = lr
    seed = row.cells.get("seed")
    words = [source, row.cells.get("framework"), row.cells.get("experiment")]
    return _Identity(
        origin=", ".join(word for word in words if word),
        problem=row.cells["problem"],
        optimizer=row.cells["optimizer"],
        settings=settings,
        epochs=None if epochs is None else whole_number(epochs, "num_epochs", at_least=1),
        batch_size=whole_number(batch_size, "batch_size", at_least=1),
        seed=SEVERAL_SEEDS if seed is None else whole_number(seed, "seed", at_least=SEVERAL_SEEDS),
    )


def _agreed(name: str, *stated: Any) -> Any:
    """The one value of a setting that several columns may state."""
    values = [value for value in map(by_value, stated) if value is not None]
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        raise ValueError(f"{name} must be a finite number, got {shorten(values[0])}")
    if any(value != values[0] for value in values):
        raise ValueError(f"two values of {name}, {shorten(values[0])} and {shorten(values[-1])}")
    return values[0] if values else None


def _figures(row: _Row, identity: _Identity) -> _Figures:
    epoch = None
    if "epoch" in row.cells:
        number = _number(row, "epoch")
        if (wrong := implausible_epoch(number, identity.epochs)) is not None:
            raise ValueError(wrong)
        epoch = int(number)
    runs = row.first("n_runs", "n_seeds")
    count = None if runs is None else whole_number(runs, "n_runs", at_least=1)
    bad = row.first("n_diverged", "n_aborted_or_diverged")
    diverged = 0 if bad is None else whole_number(bad, "n_diverged", at_least=0)
    if count is not None and diverged > count:
        raise ValueError(f"{diverged} of {count} runs diverged, which cannot be")
    values: dict[tuple[str, str], float] = {}
    best: dict[str, float] = {}
    for column in row.cells:
        if (match := _METRIC.match(column)) is not None:
            name = _FULL[match[2]] + ("_std" if match[3] == "std" else "")
            value = _plausible(row, column, name)
            split = _SPLITS.get(match[1], match[1])
            if (split, name) in values:
                raise ValueError(f"{split} {name} stands in two columns")
            # The deviation of a single run is written as nan, which says nothing of the run.
            if not (name.endswith("_std") and math.isnan(value)):
                values[split, name] = value
        elif (match := _BEST.match(column)) is not None:
            value = _plausible(row, column, _FULL[match[2]])
            if math.isfinite(value):
                best[f"{_SPLITS.get(match[1], match[1])}_{_FULL[match[2]]}"] = value
    for split in ("train", "valid", "test"):
        mean, deviation = values.get((split, "accuracy")), values.get((split, "accuracy_std"))
        if mean is not None and deviation is not None and math.isfinite(mean):
            wrong = implausible_spread(min(mean, 1.0), deviation, count)
            if wrong is not None:
                raise ValueError(wrong)
    apart = {name: by_value(row.cells[name]) for name in _APART if name in row.cells}
    return _Figures(row.line, epoch, values, best, count, diverged, apart)


def _number(row: _Row, column: str) -> float:
    try:
        return read_number(row.cells[column])
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def _plausible(row: _Row, column: str, name: str) -> float:
    value = _number(row, column)
    if (wrong := implausible(name, value)) is not None:
        raise ValueError(f"{column}: {wrong}")
    return value


def _run(identity: _Identity, rows: list[_Figures], first: _Row) -> Run:
    last = max((row.epoch for row in rows if row.epoch is not None), default=None)
    horizon = identity.epochs if identity.epochs is not None else last
    if horizon is None:
        raise ValueError("no num_epochs in a column of its own, nor among the hyperparameters")
    count = max((row.runs for row in rows if row.runs is not None), default=None)
    diverged = max(row.diverged for row in rows)
    all_diverged = diverged > 0 and diverged == (1 if count is None else count)
    metrics = [
        Measurement(
            UNKNOWN_STEP, float(horizon if row.epoch is None else row.epoch), split, name, v
        )
        for row in rows
        for (split, name), v in row.values.items()
    ]
    if not any(not m.name.endswith("_std") for m in metrics) and not diverged:
        raise ValueError("no figure in any of its rows")
    reason = f"imported from {identity.origin}" + (f": mean over {count} runs" if count else "")
    if diverged:
        reason += f", of which {diverged} diverged"
    best: dict[str, float] = {}
    for row in rows:
        for key, value in row.best.items():
            better = max if higher_is_better(key) else min
            best[key] = better(best.get(key, value), value)
    curves = last is not None
    run = foreign_run(
        source=identity.origin,
        problem=identity.problem,
        optimizer=identity.optimizer,
        hyperparameters=identity.settings,
        seed=identity.seed,
        epochs=horizon,
        batch_size=identity.batch_size,
        metrics=metrics,
        status=Status.DIVERGED if all_diverged else None,
        reason=reason if count or diverged else "",
        # Final values alone do not tell the best ones.
        best=best or (None if curves else {}),
        environment={"runs": count, "seeds": first.cells.get("seeds")},
    )
    return run
