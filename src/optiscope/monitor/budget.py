"""A budget in time: instruments are called as often as their measured cost allows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Budget"]


class Budget:
    """Interval of each instrument, from what it costs and what a step costs.

    ``share`` is the part of the training time that all instruments together may take. An
    instrument of cost c on steps of s seconds gets the interval c / (s share / instruments).
    """

    def __init__(self, share: float, every: int) -> None:
        self.share, self.every = share, every
        self.costs: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.spent: dict[str, float] = {}
        self.next: dict[str, int] = {}
        self.step_seconds: float | None = None
        self._last: tuple[int, float] | None = None
        self._inside = 0.0

    def step(self, number: int) -> None:
        """A step is done: keep a running estimate of what a step costs without instruments."""
        now = time.perf_counter()
        if self._last is not None and number > self._last[0]:
            seconds = (now - self._last[1] - self._inside) / (number - self._last[0])
            seconds = max(seconds, 1e-9)
            known = self.step_seconds
            # the least of recent steps: evaluation and loading between steps are no steps
            self.step_seconds = seconds if known is None else min(1.02 * known, seconds)
        self._last = (number, now)
        self._inside = 0.0

    def due(self, name: str, step: int) -> bool:
        """Whether the instrument may be called at ``step``."""
        return step >= self.next.get(name, 0)

    @contextmanager
    def spend(self, name: str, step: int) -> Iterator[None]:
        """Measure one call and set the step of the next."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self._inside += seconds
            self.calls[name] = self.calls.get(name, 0) + 1
            self.spent[name] = self.spent.get(name, 0.0) + seconds
            known = self.costs.get(name)
            # the first call warms up: it counts until there is another
            steady = (
                seconds if known is None or self.calls[name] == 2 else 0.8 * known + 0.2 * seconds
            )
            self.costs[name] = steady
            self.next[name] = step + self.interval(name)

    def interval(self, name: str) -> int:
        """Steps between two calls, a multiple of ``every``."""
        cost = self.costs.get(name)
        if cost is None or self.step_seconds is None or self.share <= 0:
            return self.every
        allowed = self.step_seconds * self.share / max(1, len(self.costs))
        return self.every * max(1, math.ceil(cost / max(allowed, 1e-12) / self.every))

    def table(self) -> list[dict[str, float | str]]:
        """Cost, calls, interval and seconds spent by instrument."""
        return [
            {
                "instrument": name,
                "cost": self.costs[name],
                "calls": self.calls[name],
                "interval": self.interval(name),
                "seconds": self.spent[name],
            }
            for name in self.spent
        ]
