"""Stopping when a validation figure no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optiscope.records.run import higher_is_better

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """Stops after ``patience`` evaluations without an improvement by more than ``min_delta``.

    ``metric`` is ``valid_loss`` or another ``valid_`` figure; what is not a loss should rise.
    Declared as ``{metric = "valid_loss", patience = 5, min_delta = 0.0}``.

    Raises:
        ValueError: a metric that is not of the validation split, or a patience below one.
    """

    def __init__(self, metric: str = "valid_loss", patience: int = 5, min_delta: float = 0.0):
        if not str(metric).startswith("valid_"):
            raise ValueError(
                f"early stopping watches the validation split ('valid_loss', ...), got {metric!r}"
            )
        if not (isinstance(patience, int) and not isinstance(patience, bool) and patience >= 1):
            raise ValueError(f"patience must be a positive integer, got {patience!r}")
        if not (isinstance(min_delta, int | float) and 0 <= min_delta < math.inf):
            raise ValueError(f"min_delta must be a number of at least 0, got {min_delta!r}")
        self.metric, self.patience, self.min_delta = metric, patience, min_delta
        self._sign = 1.0 if higher_is_better(metric) else -1.0
        self._best = float("-inf")
        self._since = 0

    @classmethod
    def of(cls, declared: Mapping[str, Any] | None) -> EarlyStopping | None:
        """The declared criterion, or None; raises ValueError on unknown words."""
        if declared is None:
            return None
        try:
            return cls(**declared)
        except TypeError:
            raise ValueError(
                "early stopping takes 'metric', 'patience' and 'min_delta', "
                f"got {', '.join(declared)}"
            ) from None

    def update(self, latest: Mapping[str, float]) -> str | None:
        """Take in the latest values; return the reason to stop, or None to go on."""
        value = self._sign * latest[self.metric]
        if value > self._best + self.min_delta:
            self._best, self._since = value, 0
        else:
            self._since += 1
        if self._since < self.patience:
            return None
        return f"{self.metric} has not improved for {self.patience} evaluations"
