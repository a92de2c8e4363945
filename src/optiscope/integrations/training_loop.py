"""The watch as an instrument of our own training loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from optiscope.doctor.finding import Finding
from optiscope.doctor.watching import Watch, watch
from optiscope.errors import OptiscopeError
from optiscope.monitor.instrument import Instrument, StartView

__all__ = ["WatchInstrument", "check_options"]


def check_options(**options: Any) -> None:
    """Raise OptiscopeError where ``optiscope.watch`` would refuse these options."""
    model = nn.Linear(1, 1)
    watch(model, torch.optim.SGD(model.parameters(), 0.1), **options).close()


class WatchInstrument(Instrument):
    """``optiscope.run(..., instruments=[WatchInstrument()])``; findings in ``.findings``.

    ``options`` are those of :func:`optiscope.watch`. The record gets nothing from it: the loop is
    the same, bit for bit, with and without. With ``strict=False`` an optimizer or model that cannot
    be watched is trained unwatched, and ``trouble`` says why.
    """

    name = "watch"
    needs: frozenset[str] = frozenset()

    def __init__(
        self, *, out: str | Path | None = None, strict: bool = True, **options: Any
    ) -> None:
        self._options = {"on_finding": "log", "out": out, **options}
        self.watch: Watch | None = None
        self.strict, self.trouble = strict, ""

    def found(self) -> list[dict[str, Any]] | None:
        """The findings as plain values, None where the run was not watched."""
        return None if self.watch is None else self.watch.data()["findings"]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the watch has found, causes first."""
        return () if self.watch is None else self.watch.findings

    def on_start(self, view: StartView) -> None:
        """Attach to the run's model and optimizer."""
        horizon = view.epochs * view.steps_per_epoch
        try:
            self.watch = watch(view.model, view.optimizer, horizon=horizon, **self._options)
        except (TypeError, OptiscopeError) as error:
            if self.strict:
                raise
            self.trouble = str(error)

    def close(self) -> None:
        """Detach."""
        if self.watch is not None:
            self.watch.close()
