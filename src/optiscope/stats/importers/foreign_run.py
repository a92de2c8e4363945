"""A run that somebody else made: checked for plausibility, with words for what is not known."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from optiscope.errors import OptiscopeError, shorten
from optiscope.records import Measurement, Run, Status, Trial, higher_is_better, summarise
from optiscope.records.trial import canonical_json

__all__ = [
    "FOREIGN_VERSION",
    "SEVERAL_SEEDS",
    "UNKNOWN_STEP",
    "ImportFormatError",
    "by_value",
    "foreign_run",
    "implausible",
    "implausible_epoch",
    "implausible_spread",
    "plain_settings",
    "read_number",
    "whole_number",
]

FOREIGN_VERSION = 0
"""Problem version of every imported run: its splits and preprocessing are not those of ours."""

SEVERAL_SEEDS = -1
"""Seed of a record that holds means over runs with several seeds, or whose seed is not known."""

UNKNOWN_STEP = -1
"""Number of steps where only epochs are known."""

ROUNDING = 1e-6
"""An accuracy that was averaged in single precision may exceed 1 by less than this."""

LARGEST_COUNT = 2**53
"""Whole numbers beyond this are not exact in double precision, in which tables are read."""

NOT_MEASURED = ("-", "--", "n/a", "na", "none", "null", "?")
"""What tables write for no value, which says neither "not measured" nor "no number"."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.I | re.A)
_WORDS = {"none": None, "null": None, "": None, "true": True, "false": False}


class ImportFormatError(OptiscopeError, ValueError):
    """A file that is not of the layout to import, in one line with the file's name."""


def read_number(text: str) -> float:
    """A number as tables write it: ``3e-3``, ``.5``, ``nan``, ``-inf``, blanks around it ignored.

    Raises:
        ValueError: anything else, a percent sign and a decimal comma included.
    """
    if _NUMBER.fullmatch(text.strip()) is None:
        hint = "write it as 0.913 or 9.1e-1"
        if text.strip().casefold() in NOT_MEASURED:
            hint = "leave the cell empty where nothing was measured, write nan where it diverged"
        raise ValueError(f"could not read {shorten(text)} as a number: {hint}")
    return float(text)


def whole_number(value: Any, name: str, *, at_least: int) -> int:
    """``value`` as an integer, whether it comes as ``128``, ``128.0`` or ``"128"``.

    Raises:
        ValueError: it is no whole number, below ``at_least``, or above :data:`LARGEST_COUNT`.
    """
    number = by_value(value)
    plain = isinstance(number, int | float) and not isinstance(number, bool)
    if not plain or not math.isfinite(number) or number != int(number) or number < at_least:
        raise ValueError(
            f"{name} must be a whole number of at least {at_least}, got {shorten(value)}"
        )
    if number > LARGEST_COUNT:
        raise ValueError(f"{name} must be at most {LARGEST_COUNT}, got {shorten(value)}")
    return int(number)


def by_value(value: Any) -> Any:
    """A setting by its value, however it was written: ``"3e-3"`` is 0.003, ``"True"`` is True."""
    if isinstance(value, str):
        text = value.strip()
        if text.casefold() in _WORDS:
            return _WORDS[text.casefold()]
        if _NUMBER.fullmatch(text) is None:
            return text
        return int(text) if re.fullmatch(r"[+-]?\d{1,300}", text) else float(text) + 0.0
    if isinstance(value, Mapping):
        return {str(key).strip(): by_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [by_value(item) for item in value]
    return value + 0.0 if isinstance(value, float) else value  # -0.0 is 0.0


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters by value, without those that are not set.

    Raises:
        ImportFormatError: one is no number, word, list or table, or not finite.
    """
    plain = {name: value for name, value in by_value(settings).items() if value is not None}
    try:
        canonical_json(plain)
    except (ValueError, TypeError, RecursionError):
        raise ImportFormatError(
            f"hyperparameters must be finite numbers, words and lists, got {shorten(settings)}"
        ) from None
    return plain


def implausible(name: str, value: float) -> str | None:
    """Why a figure cannot be what its name says; None where it can.

    Values that are no number are not judged: they stand for a loss that diverged.

    Args:
        name: ``accuracy``, ``loss``, ``accuracy_std``, ``top5_accuracy`` or another metric's.
        value: what was stated.
    """
    if name.endswith("_std"):
        if value < 0 or math.isinf(value):
            return f"a standard deviation must be a finite number of at least 0, got {value:g}"
        if _is_fraction(name) and value > math.sqrt(0.5):  # of the two values 0 and 1
            return (
                "no standard deviation of accuracies between 0 and 1 exceeds 0.7071, "
                f"got {value:g}: divide it by 100 if it is in points"
            )
        return None
    if not math.isfinite(value):
        return None
    if _is_fraction(name) and not 0 <= value <= 1 + ROUNDING:
        hint = ": divide it by 100 if it is in percent" if 1 < value <= 100 else ""
        kind = "an accuracy" if "acc" in name else name
        return f"{kind} is a fraction between 0 and 1, got {value:g}{hint}"
    if name.endswith("perplexity") and value < 1 - ROUNDING:
        return f"a perplexity is at least 1, got {value:g}"
    if not higher_is_better(name) and value < 0:
        return f"a loss is at least 0, got {value:g}"
    return None


def _is_fraction(name: str) -> bool:
    """Whether a metric is a share of samples: accuracies of any kind, and rates of errors."""
    words = set(name.split("_"))
    return bool(words & {"accuracy", "acc"}) or {"error", "rate"} <= words


def implausible_spread(mean: float, deviation: float, runs: int | None) -> str | None:
    """Why accuracies of this mean cannot have this standard deviation; None where they can.

    n numbers between 0 and 1 with mean m have a variance of m(1 - m) n / (n - 1) at most.
    """
    count = 2 if runs is None or runs < 2 else runs
    largest = math.sqrt(max(0.0, mean * (1 - mean)) * count / (count - 1))
    if not deviation > largest + ROUNDING:
        return None
    return (
        f"accuracies between 0 and 1 with mean {mean:g} have a standard deviation of "
        f"{largest:.4g} at most, got {deviation:g}: divide it by 100 if it is in points"
    )


def foreign_run(
    *,
    source: str,
    problem: str,
    optimizer: str,
    hyperparameters: Mapping[str, Any],
    seed: int,
    epochs: int,
    batch_size: int,
    metrics: Sequence[Measurement],
    status: Status | None = None,
    reason: str = "",
    schedule: Mapping[str, Any] | None = None,
    best: Mapping[str, float] | None = None,
    environment: Mapping[str, Any] | None = None,
    started: str = "",
) -> Run:
    """A record marked ``imported`` from ``source``, without times and counts.

    Measurements are put in order of epochs. A run is diverged where a measured value is no number,
    and interrupted where its last epoch lies before the horizon; only a run that reached its
    horizon, or diverged, has final values.

    Args:
        source: where the run came from, in words; kept in ``Run.imported``.
        problem: name that the source gives it.
        optimizer: name that the source gives it.
        hyperparameters: everything the source states; kept by value, so that ``"3e-3"`` is 0.003.
        seed: the run's, or :data:`SEVERAL_SEEDS`.
        epochs: horizon.
        batch_size: samples per step.
        metrics: measurements; steps may be :data:`UNKNOWN_STEP`. Names that end in ``_std`` are
            spreads: they enter neither final nor best values.
        status: how it ended, where the source says so; by default what the measurements say.
        reason: the same in words; says that it was imported by default.
        schedule: as the source states it.
        best: best values per ``split_name``; by default the best of ``metrics``.
        environment: what the source says about where it ran.
        started: UTC time in ISO 8601, empty where it is not known.

    Raises:
        ImportFormatError: a figure cannot be what its name says; an epoch is negative, fractional,
            beyond the horizon or stated twice for a metric; or a hyperparameter is no plain value.
    """
    _check(metrics, epochs)
    rows = sorted(metrics, key=lambda row: row.epoch)
    ending, words = _ending(rows, epochs)
    status = ending if status is None else status
    values = [row for row in rows if not row.name.endswith("_std")]
    if status.complete:
        final = summarise([row for row in values if row.epoch == epochs])[0]
    else:
        final = summarise(values)[0] if status is Status.DIVERGED else {}
    settings = plain_settings(hyperparameters)
    trial = Trial(
        problem=problem,
        problem_version=FOREIGN_VERSION,
        optimizer=optimizer,
        hyperparameters=settings,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
    )
    return Run(
        trial=trial,
        status=status,
        reason=reason or f"imported from {source}{words}",
        steps=max((m.step for m in metrics), default=UNKNOWN_STEP),
        seconds={},
        counts={},
        peak_memory_bytes=None,
        environment=dict(environment or {}),
        started=started,
        metrics=tuple(rows),
        final=final,
        best=summarise(values)[1] if best is None else dict(best),
        imported=source,
    )


def _check(metrics: Sequence[Measurement], horizon: int) -> None:
    seen: set[tuple[float, str, str]] = set()
    for row in metrics:
        where = f"{row.split} {row.name} at epoch {row.epoch:g}"
        if (wrong := implausible_epoch(row.epoch, horizon)) is not None:
            raise ImportFormatError(wrong)
        if (wrong := implausible(row.name, row.value)) is not None:
            raise ImportFormatError(f"{where}: {wrong}")
        if (row.epoch, row.split, row.name) in seen:
            raise ImportFormatError(f"{where} is stated twice")
        seen.add((row.epoch, row.split, row.name))


def implausible_epoch(epoch: float, horizon: int | None) -> str | None:
    """Why a measurement cannot be of this epoch; None where it can."""
    if not math.isfinite(epoch) or epoch < 0 or epoch != int(epoch):
        return f"epoch must be a whole number of at least 0, got {epoch:g}"
    if horizon is not None and epoch > horizon:
        return f"epoch {epoch:g} lies beyond the horizon of {horizon} epochs"
    return None


def _ending(rows: Sequence[Measurement], horizon: int) -> tuple[Status, str]:
    """How a run ended by its measurements, in order of epochs; and the same in words."""
    bad = [r for r in rows if not (math.isfinite(r.value) or r.name.endswith("_std"))]
    if bad:
        first = bad[0]
        return (
            Status.DIVERGED,
            f": {first.split} {first.name} was no number at epoch {first.epoch:g}",
        )
    last = max((row.epoch for row in rows), default=None)
    if last is None:
        return Status.INTERRUPTED, ": nothing was measured"
    if last < horizon:
        return Status.INTERRUPTED, f": ended at epoch {last:g} of {horizon}"
    return Status.FINISHED, ""
