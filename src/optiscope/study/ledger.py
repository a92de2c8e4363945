"""When a study's ledger is written: as its entries become known, but not all of them each time."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from optiscope.records import StudyFolder
from optiscope.study.plan import Plan

__all__ = ["Ledger"]

TIMES = 20.0
"""How many times as long as writing took it rests: a twentieth of the time at most goes into it."""


class Ledger:
    """Writes the entries of a plan into a study's folder.

    The file is a function of the declaration and the records: nothing is lost with a worker that is
    killed before it wrote what it knew. A small file is written as soon as there is more to tell.

    Args:
        plan: what is planned by now.
        folder: of the study.
        clock: seconds, from any beginning.
    """

    def __init__(
        self, plan: Plan, folder: StudyFolder, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self.plan, self.folder, self.clock = plan, folder, clock
        self._length, self._next = -1, -math.inf

    def write_soon(self) -> None:
        """Write what is new, unless it was written just now."""
        if self.clock() >= self._next:
            self.write()

    def write(self) -> None:
        """Write what is new; raises StoreError."""
        entries = self.plan.entries
        if len(entries) == self._length:
            return
        begun = self.clock()
        self.folder.write_ledger(entries)
        end = self.clock()
        self._length, self._next = len(entries), end + TIMES * (end - begun)
