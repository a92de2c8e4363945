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
from optiscope.records import StudyFolder
from optiscope.study.aftermath import Aftermath, name_of
from optiscope.study.claims import Claim, Claims
from optiscope.study.progress import LOOK_SECONDS, Progress, study_in
from optiscope.study.study import Study
from optiscope.study.work import MOST_TOGETHER, record_trials, sweep_states

__all__ = ["Worked", "study_in", "work"]

MARGIN_SECONDS = 60.0  # before the end of its time a worker saves and leaves


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
        self.aftermath = Aftermath(self.progress, folder.store, say)

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
                self.progress.ledger.write_soon()
                if not self.progress.open or (end is not None and time.monotonic() > end):
                    break
                most = MOST_TOGETHER if max_trials is None else max_trials - trained
                claims = self._claim(min(most, MOST_TOGETHER))
                if not claims:  # others train what is left
                    time.sleep(LOOK_SECONDS)
                    continue
                try:
                    with self.claims.beating(*claims):
                        trained += self._train(claims)
                finally:
                    for claim in claims:
                        self.claims.release(claim)
            self.progress.look()
            if not self.progress.open:
                self.claims.sweep(set(self.folder.store.hashes()).__contains__)
                sweep_states(self.folder.store)
            self.progress.ledger.write()
            if self.leaving:
                on_leaving()
        finally:
            if seconds is not None:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Worked(trained, not self.progress.open, self.leaving, self.aftermath.crashed)

    def _leave(self, number: int, _frame: FrameType | None) -> None:
        """Have the trial save its state, and take no other."""
        self.leaving = True
        signal_child(signal.SIGTERM)

    def _claim(self, most: int) -> list[Claim]:
        """A trial that nobody has, and those that train together with it.

        Workers begin at different ones.
        """
        names, claims = list(self.progress.open), list[Claim]()
        begin = random.Random(f"{os.getpid()} {len(names)}").randrange(len(names))
        for name in [*names[begin:], *names[:begin]]:
            if claims and not self._joins(name, claims[0]):
                continue
            claim = self.claims.take(name)
            if claim is None:
                continue
            if self.folder.store.path(name).exists():  # recorded since the last look
                self.claims.release(claim)
                break
            claims.append(claim)
            if (
                len(claims) == most
                or name in self.aftermath.deaths
                or not self.progress.open[name].together
            ):
                break
        return claims

    def _joins(self, name: str, first: Claim) -> bool:
        """Whether a trial trains together with another; one that died before trains alone."""
        trial, other = self.progress.open[name], self.progress.open[first.trial_hash]
        alike = trial.together and trial.likeness == other.likeness
        return bool(alike) and name not in self.aftermath.deaths

    def _train(self, claims: list[Claim]) -> int:
        """Train trials; how many of them there is a record of now."""
        trials, told = [self.progress.open[claim.trial_hash] for claim in claims], 0
        for claim, trial in zip(claims, list(trials), strict=True):
            if claim.hopeless is not None:
                told += self.aftermath.give_up(trial, claim.hopeless)
                trials.remove(trial)
            elif claim.ends:
                end = claim.ends[-1]
                self.say(
                    f"{name_of(trial)}: the job that had it ended as {end}; going on from there"
                )
        try:
            root = self.folder.store.root
            record_trials(trials, root, self.data_dir, self.keep, self.monitor)
        except KeyboardInterrupt:
            self.leaving = True
            return told
        except (ChildDied, ChildHung) as error:
            if not self.leaving:
                told += sum(self.aftermath.died(trial, error, len(trials)) for trial in trials)
            return told
        return told + sum(map(self.aftermath.settle, trials))


def _signals(seconds: float | None) -> list[signal.Signals]:
    timer = [signal.SIGALRM] if seconds is not None else []
    return [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, *timer]
