"""The watch as an instrument of our own training loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optiscope.doctor.finding import Finding
from optiscope.doctor.watching import Watch, watch
from optiscope.monitor.instrument import Instrument, StartView

__all__ = ["WatchInstrument"]


class WatchInstrument(Instrument):
    """``optiscope.run(..., instruments=[WatchInstrument()])``; findings in ``.findings``.

    ``options`` are those of :func:`optiscope.watch`. The record gets nothing from it: the loop is
    the same, bit for bit, with and without.
    """

    name = "watch"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, out: str | Path | None = None, **options: Any) -> None:
        self._options = {"on_finding": "log", "out": out, **options}
        self.watch: Watch | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the watch has found, causes first."""
        return () if self.watch is None else self.watch.findings

    def on_start(self, view: StartView) -> None:
        """Attach to the run's model and optimizer."""
        self.watch = watch(
            view.model, view.optimizer, horizon=view.epochs * view.steps_per_epoch, **self._options
        )

    def close(self) -> None:
        """Detach."""
        if self.watch is not None:
            self.watch.close()
