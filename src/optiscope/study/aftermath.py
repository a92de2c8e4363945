"""What becomes of a worker's trials once their process has ended: a record, or another try."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from optiscope.executors.apart import ChildDied, ChildHung
from optiscope.executors.dispatch import MAX_DEATHS, MAX_MISSING
from optiscope.records import Run, RunStore, Status, Trial
from optiscope.study.progress import Progress

__all__ = ["Aftermath", "name_of"]


class Aftermath:
    """Counts what went wrong with each trial, and says it.

    Args:
        progress: of the study.
        store: of its records.
        say: told, in a line, of every trial, and of what goes wrong.

    Attributes:
        deaths: times that a trial took its process with it, alone; with 0 those that died with
            others, and are tried alone.
        crashed: trials whose record says so.
    """

    def __init__(self, progress: Progress, store: RunStore, say: Callable[[str], None]) -> None:
        self.progress, self.store, self.say = progress, store, say
        self.deaths: dict[str, int] = {}
        self.crashed = 0
        self._missing = Counter[str]()
        self._told: set[str] = set()

    def died(self, trial: Trial, error: ChildDied | ChildHung, together: int) -> bool:
        """Note that a trial's process died; whether that was once too often."""
        self.deaths.setdefault(trial.hash, 0)
        if together > 1:
            self.say(f"{name_of(trial)}: the process of {together} trials {error}; next time alone")
            return False
        if isinstance(error, ChildHung):
            return self.give_up(trial, f"its process {error} and was killed", Status.TIMED_OUT)
        self.deaths[trial.hash] += 1
        self.say(f"{name_of(trial)}: its process {error}")
        if self.deaths[trial.hash] < MAX_DEATHS:
            return False
        verb, bracket, rest = str(error).partition(" (")
        return self.give_up(trial, f"its process {verb} {MAX_DEATHS} times{bracket}{rest}")

    def settle(self, trial: Trial) -> bool:
        """Say what became of a trial; whether there is a record of it."""
        run = self.progress.usable(trial)
        if run is None:
            self._missing[trial.hash] += 1
            if self._missing[trial.hash] < MAX_MISSING:
                return False
            return self.give_up(trial, f"no record of it appeared after {MAX_MISSING} tries")
        self.crashed += run.status is Status.CRASHED
        reason = f", {run.reason}" if run.status is Status.CRASHED else ""
        self.say(f"{name_of(trial)}: {run.status}{reason}")
        if (other := run.environment.get("data")) is not None and other not in self._told:
            self._told.add(other)
            self.say(f"{trial.problem}: {other}")
        return True

    def give_up(self, trial: Trial, reason: str, status: Status = Status.CRASHED) -> bool:
        """Record a trial that no process could finish; True."""
        self.store.write(Run.unstarted(trial, status, reason))
        self.crashed += status is Status.CRASHED
        self.say(f"{name_of(trial)}: {status}, {reason}")
        return True


def name_of(trial: Trial) -> str:
    """A trial in words."""
    return f"{trial.optimizer} on {trial.problem}, seed {trial.seed}"
