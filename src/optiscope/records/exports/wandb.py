"""Weights & Biases: a run in offline files, unless ``WANDB_MODE`` says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optiscope.records.exports.plain import finite, flat

__all__ = ["Run"]


class Run:
    """A run in ``where/wandb``; ``wandb sync`` uploads it.

    Nothing goes over the network unless the environment sets ``WANDB_MODE=online``.
    """

    def __init__(
        self, where: Path | str, *, name: str, group: str, settings: Mapping[str, Any]
    ) -> None:
        import wandb

        folder = Path(where)
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=group.replace("/", "-")[:128],
            name=name,
            dir=str(folder),
            config=dict(flat(settings)),
            mode=None if os.environ.get("WANDB_MODE") else "offline",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Values with ``step`` as their axis: W&B's own step may only rise."""
        if known := finite(values):
            self._run.log({**known, "step": step})

    def note(self, name: str, text: str) -> None:
        """A text in the run's summary."""
        self._run.summary[name] = text

    def finish(self, summary: Mapping[str, float], status: str) -> None:
        """Final values and the status in the summary, and the end of the run."""
        self._run.summary.update({**finite(summary), "status": status})
        self._run.finish()
