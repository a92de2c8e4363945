"""A tracker: where a run's settings, series and summary go, whichever program shows them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from optiscope.errors import OptiscopeError, shorten
from optiscope.hints import did_you_mean

__all__ = ["TRACKERS", "ExportError", "Tracker", "open_tracker"]

TRACKERS = ("tensorboard", "wandb", "mlflow")
DISTRIBUTIONS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}


class ExportError(OptiscopeError):
    """A run cannot be exported: the library is missing, or the place cannot be written."""


class Tracker(Protocol):
    """One run of a tracking program, open until ``finish``."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record finite values at a step; steps may come again and in any order."""

    def note(self, name: str, text: str) -> None:
        """Record a text."""

    def finish(self, summary: Mapping[str, float], status: str) -> None:
        """Record final values and how the run ended, and close it."""


def open_tracker(
    to: str,
    where: Path | str,
    *,
    name: str,
    group: str = "optiscope",
    settings: Mapping[str, Any] | None = None,
) -> Tracker:
    """Open a run in a tracking program.

    Args:
        to: ``tensorboard``, ``wandb`` or ``mlflow``.
        where: folder for event files (TensorBoard, W&B), or a tracking address or folder (MLflow).
        name: of the run.
        group: experiment or project it belongs to.
        settings: hyperparameters and whatever else identifies the run.

    Raises:
        ExportError: unknown program, library not installed, or a place that cannot be written.
    """
    if to not in TRACKERS:
        raise ExportError(f"cannot export to {shorten(to)}; {did_you_mean(to, TRACKERS)}")
    module = importlib.import_module(f"optiscope.records.exports.{to}")
    try:
        tracker: Tracker = module.Run(where, name=name, group=group, settings=settings or {})
    except ImportError as error:
        raise ExportError(
            f"export to {to} needs the package {DISTRIBUTIONS[to]} ({error}): "
            f'pip install "optiscope[{to}]"'
        ) from error
    except OSError as error:
        raise ExportError(f"cannot write to {where}: {error.strerror or error}") from error
    return tracker
