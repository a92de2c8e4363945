"""A worker without a head: it takes trials of a study from its folder until none is left.

Any number of them, on any machines that see the folder, make up a study's run: each plans from the
declaration and the records, claims a trial, trains it in a child of its own, and records it. A
signal, or the end of its time, has it save the trial's state and leave.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from optiscope.executors.apart import ChildDied, ChildHung, allowing_children, signal_child
from optiscope.executors.dispatch import MAX_DEATHS, MAX_MISSING
from optiscope.records import Run, Status, StudyFolder, Trial
from optiscope.study.claims import Claim, Claims
from optiscope.study.progress import LOOK_SECONDS, Progress, study_in
from optiscope.study.study import Study
from optiscope.study.work import record_trials, sweep_states

__all__ = ["Worked", "study_in", "work"]

MARGIN_SECONDS = 60.0  # before the end of its time a worker saves and leaves
MAX_LOST = 20  # workers that may vanish with one trial


@dataclass(frozen=True)
class Worked:
    """What a worker did.

    Attributes:
        trained: trials that it recorded.
        finished: whether all of the study is recorded.
        left: whether it was told to go.
        crashed: how many of the trials that it recorded crashed.
    """

    trained: int
    finished: bool
    left: bool
    crashed: int = 0


def work(
    study: Study,
    folder: StudyFolder,
    *,
    data_dir: Path | None = None,
    seconds: float | None = None,
    max_trials: int | None = None,
    claims: Claims | None = None,
    say: Callable[[str], None] = lambda message: None,
    on_leaving: Callable[[], None] = lambda: None,
) -> Worked:
    """Train what nobody else trains, until all of a study is recorded.

    Args:
        study: what is asked.
        folder: where it is declared and recorded.
        data_dir: where the data sets are.
        seconds: how long the worker may live; it saves and leaves a minute before.
        max_trials: after which it leaves.
        claims: those of the folder.
        say: told, in a line, of every trial, and of what goes wrong.
        on_leaving: called at last where it was told to go, while further signals do nothing.
    """
    worker = _Worker(study, folder, data_dir, claims or Claims(folder.path), say)
    with allowing_children():
        return worker.run(seconds, max_trials, on_leaving)


class _Worker:
    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        data_dir: Path | None,
        claims: Claims,
        say: Callable[[str], None],
    ) -> None:
        self.progress, self.folder, self.data_dir = Progress(study, folder, say), folder, data_dir
        self.claims, self.say = claims, say
        self.keep, self.monitor = study.keep, study.monitor
        self.leaving = False
        self.deaths: dict[str, int] = {}
        self.crashed = 0
        self.told: set[str] = set()

    def run(
        self, seconds: float | None, max_trials: int | None, on_leaving: Callable[[], None]
    ) -> Worked:
        end = None if seconds is None else time.monotonic() + max(seconds - MARGIN_SECONDS, 0.0)
        handlers = {n: signal.signal(n, self._leave) for n in _signals(seconds)}
        if seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, max(seconds - MARGIN_SECONDS, 0.1))
        trained = 0
        try:
            while not self.leaving and (max_trials is None or trained < max_trials):
                self.progress.look()
                self.progress.write_ledger()
                if not self.progress.open or (end is not None and time.monotonic() > end):
                    break
                claim = self._claim()
                if claim is None:  # others train what is left
                    time.sleep(LOOK_SECONDS)
                    continue
                try:
                    with self.claims.beating(claim):
                        trained += self._train(self.progress.open[claim.trial_hash], claim)
                finally:
                    self.claims.release(claim)
            self.progress.look()
            if not self.progress.open:
                self.claims.sweep(set(self.folder.store.hashes()).__contains__)
                sweep_states(self.folder.store)
            self.progress.write_ledger()
            if self.leaving:
                on_leaving()
        finally:
            if seconds is not None:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Worked(trained, not self.progress.open, self.leaving, self.crashed)

    def _leave(self, number: int, _frame: FrameType | None) -> None:
        """Have the trial save its state, and take no other."""
        self.leaving = True
        signal_child(signal.SIGTERM)

    def _claim(self) -> Claim | None:
        """A trial that nobody has; workers begin at different ones."""
        names = list(self.progress.open)
        begin = random.Random(f"{os.getpid()} {len(names)}").randrange(len(names))
        for name in [*names[begin:], *names[:begin]]:
            claim = self.claims.take(name)
            if claim is not None:
                if self.folder.store.path(name).exists():  # recorded since the last look
                    self.claims.release(claim)
                    return None
                return claim
        return None

    def _train(self, trial: Trial, claim: Claim) -> bool:
        """Train a trial; whether there is a record now."""
        name = f"{trial.optimizer} on {trial.problem}, seed {trial.seed}"
        memory = claim.ends.count("OUT_OF_MEMORY")
        if memory >= MAX_DEATHS:
            return self._give_up(trial, f"its job ended {memory} times (OUT_OF_MEMORY)")
        if claim.lost >= MAX_LOST:
            return self._give_up(trial, f"{claim.lost} workers vanished with it")
        if claim.ends:
            self.say(f"{name}: the job that had it ended as {claim.ends[-1]}; going on from there")
        try:
            root = self.folder.store.root
            record_trials([trial], root, self.data_dir, self.keep, self.monitor)
        except KeyboardInterrupt:
            self.leaving = True
            return False
        except ChildHung as error:
            return self._give_up(trial, f"its process {error} and was killed", Status.TIMED_OUT)
        except ChildDied as error:
            if self.leaving:
                return False
            self.deaths[trial.hash] = self.deaths.get(trial.hash, 0) + 1
            self.say(f"{name}: its process {error}")
            if self.deaths[trial.hash] >= MAX_DEATHS:
                verb, bracket, rest = str(error).partition(" (")
                return self._give_up(trial, f"its process {verb} {MAX_DEATHS} times{bracket}{rest}")
            return False
        run = self.progress.usable(trial)
        if run is None:
            missing = f"{trial.hash} missing"
            self.deaths[missing] = self.deaths.get(missing, 0) + 1
            if self.deaths[missing] >= MAX_MISSING:
                return self._give_up(trial, f"no record of it appeared after {MAX_MISSING} tries")
            return False
        self.crashed += run.status is Status.CRASHED
        reason = f", {run.reason}" if run.status is Status.CRASHED else ""
        self.say(f"{name}: {run.status}{reason}")
        if (other := run.environment.get("data")) is not None and other not in self.told:
            self.told.add(other)
            self.say(f"{trial.problem}: {other}")
        return True

    def _give_up(self, trial: Trial, reason: str, status: Status = Status.CRASHED) -> bool:
        self.folder.store.write(Run.unstarted(trial, status, reason))
        self.crashed += status is Status.CRASHED
        self.say(f"{trial.optimizer} on {trial.problem}, seed {trial.seed}: {status}, {reason}")
        return True


def _signals(seconds: float | None) -> list[signal.Signals]:
    timer = [signal.SIGALRM] if seconds is not None else []
    return [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, *timer]
