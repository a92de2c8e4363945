"""How a run trains besides its optimizer: what a trial and an algorithm of a study share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["MOST_THREADS", "Recipe"]

MOST_THREADS = 1024
"""More make torch fail without words."""


@dataclass(frozen=True)
class Recipe:
    """A frozen value; None stands for none, or for the problem's own.

    In records its parts lie flat beside the others of a trial, so that hashes stay what they are.

    Attributes:
        schedule: learning-rate schedule (see ``optiscope.train.schedule``).
        clip: ``{"norm": c}`` or ``{"value": c}``.
        early_stopping: ``{"metric": "valid_loss", "patience": n}``.
        initialisation: a rule that redraws the model's weights.
        pruner: rule by which a trial of a tuning ends early.
        max_seconds: wall time after which the run stops.
        device: ``cpu`` or ``cuda``.
        threads: torch's intra-operation threads.
        autocast: ``bfloat16`` or ``float16`` for mixed precision in training.
        compile: True where the model is compiled for training.
        accumulate: parts in which each batch's gradient is computed, from 2.
        together: True where it trains in one batch with other trials, for GPUs.
    """

    schedule: Mapping[str, Any] | None = None
    clip: Mapping[str, float] | None = None
    early_stopping: Mapping[str, Any] | None = None
    initialisation: Mapping[str, Any] | None = None
    pruner: Mapping[str, Any] | None = None
    max_seconds: float | None = None
    device: str = "cpu"
    threads: int = 1
    autocast: str | None = None
    compile: bool | None = None
    accumulate: int | None = None
    together: bool | None = None

    def to_trial(self) -> dict[str, Any]:
        """Its parts as a trial holds them; a pruner is none before there are curves to compare."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "pruner"}
