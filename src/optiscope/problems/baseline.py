"""A published tuned result; importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Baseline"]


@dataclass(frozen=True)
class Baseline:
    """A published tuned result: where it comes from and what it was."""

    optimizer: str
    hyperparameters: Mapping[str, float]
    epochs: int
    metric: str
    mean: float
    std: float
    seeds: int
    source: str
