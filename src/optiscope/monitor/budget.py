"""A budget in time: instruments are called as often as their measured cost allows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Budget"]


class Budget:
    """Intervals from measured costs, and what was spent.

    ``share`` is the part of the training time that instruments and looks together may take. An
    instrument of cost c on steps of s seconds gets the interval c / (s share / instruments), where
    what hooks and rules take is subtracted from the share (a fifth of it is left in any case, and
    a fifth is kept for what cannot be timed: memory that the training finds cold afterwards).
    ``hooks`` is all the time spent in hooks, rules and instruments included.
    """

    LOOKS = 0.12  # of the share: for the looks of the rules
    KEPT, LEAST = 0.2, 0.2  # of the share: not given to instruments, and given in any case

    def __init__(self, share: float, every: int) -> None:
        self.share, self.every = share, every
        self.costs: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.spent: dict[str, float] = {}
        self.next: dict[str, int] = {}
        self.step_seconds: float | None = None
        self.hooks = 0.0
        self._charged: dict[str, float] = {}
        self.look_cost: float | None = None
        self.looks = self.look_seconds = 0.0
        self._first: int | None = None
        self._last: tuple[int, float, float] | None = None
        self._measured = 0.0

    def step(self, number: int) -> None:
        """A step is done: keep a running estimate of what a step costs without being watched."""
        now = time.perf_counter()
        if self._first is None:
            self._first = number
        if self._last is not None and number > self._last[0]:
            inside = self.hooks - self._last[2]
            seconds = max((now - self._last[1] - inside) / (number - self._last[0]), 1e-9)
            known = self.step_seconds
            # the least of recent steps: evaluation and loading between steps are no steps
            self.step_seconds = seconds if known is None else min(1.02 * known, seconds)
        self._last = (number, now, self.hooks)

    def looked(self, before: tuple[float, float]) -> int:
        """A look is over that began at ``mark()``; steps until the next that the budget allows."""
        cost = self.hooks - before[0] - (self._measured - before[1])
        known = self.look_cost
        self.look_cost = cost if known is None else 0.7 * known + 0.3 * cost
        self.looks += 1
        self.look_seconds += cost
        if self.step_seconds is None or self.share <= 0:
            return self.every
        return math.ceil(self.look_cost / (self.LOOKS * self.share * self.step_seconds))

    def mark(self) -> tuple[float, float]:
        """Where the accounts stand: seconds in hooks, and of these in instruments."""
        return self.hooks, self._measured

    def due(self, name: str, step: int) -> bool:
        """Whether the instrument may be called at ``step``."""
        return step >= self.next.get(name, 0)

    def charge(self, name: str, seconds: float) -> None:
        """Count what was done for an instrument before its next call as a part of that call."""
        self._charged[name] = self._charged.get(name, 0.0) + seconds
        self._measured += seconds

    @contextmanager
    def spend(self, name: str, step: int) -> Iterator[None]:
        """Measure one call and set the step of the next."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self._measured += seconds
            seconds += self._charged.pop(name, 0.0)
            self.calls[name] = self.calls.get(name, 0) + 1
            self.spent[name] = self.spent.get(name, 0.0) + seconds
            known = self.costs.get(name)
            # the first call warms up: it counts until there is another
            steady = (
                seconds if known is None or self.calls[name] == 2 else 0.8 * known + 0.2 * seconds
            )
            self.costs[name] = steady
            self.next[name] = step + self.interval(name)

    @property
    def rules(self) -> float:
        """Seconds in hooks and rules, instruments left out."""
        return max(self.hooks - self._measured, 0.0)

    def interval(self, name: str) -> int:
        """Steps between two calls, a multiple of ``every``."""
        cost = self.costs.get(name)
        if cost is None or self.step_seconds is None or self.share <= 0:
            return self.every
        taken = 0.0
        if self._last is not None and self._first is not None:
            trained = max(self._last[0] - self._first, 100) * self.step_seconds
            taken = self.rules / max(trained, 1e-9)
        given = max(self.share * (1 - self.KEPT) - taken, self.share * self.LEAST)
        allowed = self.step_seconds * given / max(1, len(self.costs))
        return self.every * max(1, math.ceil(cost / max(allowed, 1e-12) / self.every))

    def table(self) -> list[dict[str, float | str]]:
        """Cost, calls, interval and seconds spent by instrument; hooks and rules come first."""
        rows: list[dict[str, float | str]] = []
        if self.looks:
            count = int(self.looks)
            rows.append(
                {
                    "instrument": "rules (looks)",
                    "cost": self.look_seconds / count,
                    "calls": count,
                    "interval": 0,
                    "seconds": self.look_seconds,
                }
            )
            rows.append(
                {
                    "instrument": "hooks and rules (other steps)",
                    "cost": 0.0,
                    "calls": 0,
                    "interval": 1,
                    "seconds": max(self.rules - self.look_seconds, 0.0),
                }
            )
        rows += [
            {
                "instrument": name,
                "cost": self.costs[name],
                "calls": self.calls[name],
                "interval": self.interval(name),
                "seconds": self.spent[name],
            }
            for name in self.spent
        ]
        return rows
