"""What is asked of a run: A(Φ, H) on one problem with one seed and one horizon."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from optiscope.records.recipe import Recipe

__all__ = ["SCHEMA_VERSION", "Trial", "canonical_json"]

SCHEMA_VERSION = 1
"""Raised whenever a change of the package alters what a trial measures; part of every hash."""

AS_THEY_ARE = frozenset({str, int, bool, type(None)})
"""Types whose values are written by JSON in one way only."""


def _canonical(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, dict | Mapping):  # dict first: it is told ten times as fast
        items = ((str(key), value[key]) for key in sorted(value))
        return {k: v if type(v) in AS_THEY_ARE else _canonical(v) for k, v in items}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return value


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, and 1.0 written as 1, so that equal values read equal."""
    return json.dumps(_canonical(value), separators=(",", ":"), allow_nan=False)


ALIKE = ("problem", "epochs", "batch_size", "device", "threads", "initialisation")
"""What trials share that train in one batch (``together``)."""
DEVICE = r"cpu|mps|(?:cuda|xpu)(?::\d{1,3})?"
"""Pattern of the names of devices."""


@dataclass(frozen=True)
class Trial:
    """A frozen value with a content hash.

    Attributes:
        problem: name or import path of the problem.
        problem_version: the problem's own version.
        optimizer: name or import path of the optimizer.
        hyperparameters: H, everything passed to the optimizer.
        seed: from it come the generators of weights, data order, and augmentation and dropout.
        epochs: horizon.
        batch_size: samples per step.
        schedule: learning-rate schedule (see ``optiscope.train.schedule``), or None.
        clip: ``{"norm": c}`` or ``{"value": c}``, or None.
        early_stopping: ``{"metric": "valid_loss", "patience": n}``, or None.
        initialisation: a rule that redraws the model's weights, or None for the problem's own.
        pruning: rule by which a trial of a tuning ends early, with the curves it is compared
            with (see ``optiscope.train.stopping``), or None.
        max_seconds: wall time after which the run stops with status ``timed_out``.
        device: ``cpu``, ``cuda``, ``xpu``, ``mps``, or one of several such as ``cuda:1``.
        threads: torch's intra-operation threads; their number changes the order of sums.
        autocast: ``bfloat16`` or ``float16``, mixed precision in training, or None.
        compile: True where the model is compiled for training, or None.
        accumulate: parts in which each batch's gradient is computed, or None.
        optimizer_version: the optimizer's own version, or None if it has none.
        optimizer_code: digest of the code of an optimizer that has an import path and no version.
        problem_code: digest of the code of a problem that has an import path.
        together: True where it trains in one batch with other trials, or None.
        schema: the package's schema version.
    """

    problem: str
    problem_version: int
    optimizer: str
    hyperparameters: Mapping[str, Any]
    seed: int
    epochs: int
    batch_size: int
    schedule: Mapping[str, Any] | None = None
    clip: Mapping[str, float] | None = None
    early_stopping: Mapping[str, Any] | None = None
    initialisation: Mapping[str, Any] | None = None
    pruning: Mapping[str, Any] | None = None
    max_seconds: float | None = None
    device: str = "cpu"
    threads: int = 1
    optimizer_version: int | None = None
    optimizer_code: str | None = None
    problem_code: str | None = None
    autocast: str | None = None
    compile: bool | None = None
    accumulate: int | None = None
    together: bool | None = None
    schema: int = field(default=SCHEMA_VERSION)

    @property
    def recipe(self) -> Recipe:
        """How it trains, besides the optimizer; a trial's pruning is no longer a pruner's name."""
        names = (f.name for f in fields(Recipe) if f.name != "pruner")
        return Recipe(**{name: getattr(self, name) for name in names})

    @property
    def hash(self) -> str:
        """First 20 hex digits of the SHA-256 of the canonical JSON of all fields that are set.

        A field that is None does not count, so that trials keep their hash when a version of the
        package learns a new field.
        """
        values = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        given = {name: value for name, value in values if value is not None}
        return hashlib.sha256(canonical_json(given).encode()).hexdigest()[:20]

    @property
    def likeness(self) -> str:
        """What it shares with the trials that it may train together with, as text."""
        return canonical_json({name: getattr(self, name) for name in ALIKE})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as stored."""
        return asdict(self)

    @classmethod
    def unknown_fields(cls, values: Mapping[str, Any]) -> list[str]:
        """Fields that are set in ``values`` and that no trial of this version has."""
        known = {f.name for f in fields(cls)}
        return [name for name, value in values.items() if name not in known and value is not None]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trial:
        """Inverse of :meth:`to_dict`; raises TypeError on missing or unknown fields.

        Unknown fields that are None are those of a newer version that this trial does not use.
        """
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known or v is not None})
