"""Wall and CPU seconds of a run, split by phase."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from time import perf_counter, process_time

from optiscope.records import Seconds

__all__ = ["PHASES", "PhaseClock"]

PHASES = ("data", "forward_backward", "optimizer", "instruments", "evaluation")


class PhaseClock:
    """Attributes the time since the last mark to a phase; a mark costs about half a microsecond.

    CPU time is that of the whole process, summed over threads. On a GPU kernels run on after a
    phase's Python code has returned: their time appears in the phase that waits for them.
    """

    def __init__(self) -> None:
        self._wall: defaultdict[str, float] = defaultdict(float)
        self._cpu: defaultdict[str, float] = defaultdict(float)
        self.restart()

    def restart(self) -> None:
        """Drop the time since the last mark."""
        self._last_wall = perf_counter()
        self._last_cpu = process_time()

    def mark(self, phase: str) -> None:
        """Add the time since the last mark to ``phase``."""
        wall, cpu = perf_counter(), process_time()
        self._wall[phase] += wall - self._last_wall
        self._cpu[phase] += cpu - self._last_cpu
        self._last_wall, self._last_cpu = wall, cpu

    def add(self, seconds: Mapping[str, Seconds]) -> None:
        """Count what an earlier session took."""
        for phase, spent in seconds.items():
            self._wall[phase] += spent.wall
            self._cpu[phase] += spent.cpu

    def seconds(self) -> dict[str, Seconds]:
        """Time so far of every phase that took any."""
        return {p: Seconds(self._wall[p], self._cpu[p]) for p in PHASES if p in self._wall}
