"""When to look: a cheap tick at a fixed interval, a dear look on a schedule that thins out."""

from __future__ import annotations

__all__ = ["EARLY", "Looks"]

EARLY = frozenset({0, 1, 2, 3, 5})
DENSE = 60
DENSE_INTERVAL = 10
GROWTH = 0.4
DEEP = 30


class Looks:
    """The steps that are looked at, planned from what a look costs.

    The first looks come at ``EARLY`` steps and at every ``every``-th (at most every tenth) until
    step ``DENSE``: most faults are there from the first step. Later the interval is what the
    measured cost of a look allows for, but grows by no more than ``GROWTH`` of the steps done, so
    that a run of any length is looked at again and again. Only the latest planned steps are kept.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.count = 0
        dense = range(0, DENSE + 1, max(every, DENSE_INTERVAL))
        self._latest = dense[-1]
        self._planned = {*EARLY, *dense}

    def tick(self, step: int) -> bool:
        """Whether ``step`` is one for cheap checks."""
        return step in EARLY or step % self.every == 0

    def due(self, step: int) -> bool:
        """Whether ``step`` is looked at."""
        return step in self._planned

    def deep(self, step: int) -> bool:
        """Whether a look at ``step`` compares all weights before and after it."""
        return step <= DEEP or self.count % 4 == 0

    def looked(self, step: int, wanted: int) -> None:
        """A look at ``step`` is over; plan the next at an interval of ``wanted`` steps."""
        self.count += 1
        if step < self._latest:
            return
        longest = max(self.every, int(GROWTH * step))
        interval = min(max(wanted, self.every), longest)
        self._latest = step + max(self.every, interval - interval % self.every)
        self._planned = {s for s in self._planned if s >= step} | {step, self._latest}
