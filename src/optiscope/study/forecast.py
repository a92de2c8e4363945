"""What it costs to finish a study, and which running trials are slow, from its records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from optiscope.records import Run
from optiscope.stats.hardware import untimed

__all__ = ["Forecast", "Typical", "forecast", "in_words"]

STRAGGLES = 3.0  # times the usual seconds of a trial
ENOUGH = 3  # recorded trials, from which on there are usual seconds to straggle behind

Pair = tuple[str, str]
"""Problem and algorithm."""


class Typical:
    """Median wall seconds of the recorded trials of each pair, all phases together.

    Runs that were resumed, did not end by themselves, or shared a GPU tell nothing of seconds.
    """

    def __init__(self, runs: Iterable[tuple[Pair, Run]]) -> None:
        self._seconds: dict[Pair, list[float]] = {}
        for pair, run in runs:
            if run.status.complete and untimed(run.environment) is None and run.imported is None:
                wall = sum(seconds.wall for seconds in run.seconds.values())
                self._seconds.setdefault(pair, []).append(wall)

    def seconds(self, pair: Pair) -> float | None:
        """Of a trial of a pair; of its problem where the pair has none; None where none has."""
        own = self._seconds.get(pair)
        others = [each for (problem, _), each in self._seconds.items() if problem == pair[0]]
        values = own or [seconds for each in others for seconds in each]
        return median(values) if values else None

    def straggles(self, pair: Pair, seconds: float) -> bool:
        """Whether a trial takes more than three times what its pair's trials do."""
        own = self._seconds.get(pair, ())
        return len(own) >= ENOUGH and seconds > STRAGGLES * median(own)


@dataclass(frozen=True)
class Forecast:
    """What is left of a study.

    Attributes:
        trials: parts that are planned and not recorded.
        seconds: of training that they take one after the other, as far as that is known.
        unknown: parts of problems of which no trial is recorded yet; not in ``seconds``.
        workers: that train now.
    """

    trials: int
    seconds: float
    unknown: int
    workers: int

    def __str__(self) -> str:
        if not self.trials:
            return "all is recorded"
        text = f"{self.trials} trials left"
        if self.unknown < self.trials:
            text += f", about {in_words(self.seconds)} of training"
            if self.workers > 1:
                text += f", {in_words(self.seconds / self.workers)} with {self.workers} workers"
        if self.unknown:
            text += f" (of {self.unknown} nothing is known yet)"
        return text


def forecast(
    left: Mapping[Pair, int], running: Sequence[tuple[Pair, float]], typical: Typical
) -> Forecast:
    """What is left, given the parts of each pair and the seconds that running trials have had."""
    total, unknown = 0.0, 0
    for pair, count in left.items():
        each = typical.seconds(pair)
        if each is None:
            unknown += count
        else:
            total += each * count
    for pair, spent in running:
        each = typical.seconds(pair)
        if each is not None and left.get(pair):
            total -= min(spent, each)
    return Forecast(sum(left.values()), max(total, 0.0), unknown, len(running))


def in_words(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
