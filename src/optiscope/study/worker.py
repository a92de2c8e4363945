"""A worker without a head: it takes trials of a study from its folder until none is left.

Any number of them, on any machines that see the folder, make up a study's run: each plans from the
declaration and the records, claims a trial, trains it in a child of its own, and records it. A
signal, or the end of its time, has it save the trial's state and leave.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from optiscope.executors.apart import ChildDied, ChildHung, allow_children, signal_child
from optiscope.executors.dispatch import MAX_DEATHS, MAX_MISSING
from optiscope.records import Run, Status, StudyFolder, Trial
from optiscope.study.claims import Claim, Claims
from optiscope.study.plan import Plan
from optiscope.study.study import Study
from optiscope.study.work import record_trials, usable

__all__ = ["Worked", "study_in", "work"]

MARGIN_SECONDS = 60.0  # before the end of its time a worker saves and leaves
LOOK_SECONDS = 2.0  # between looks at the folder, while others train what is left
MAX_LOST = 20  # workers that may vanish with one trial


@dataclass(frozen=True)
class Worked:
    """What a worker did.

    Attributes:
        trained: trials that it recorded.
        finished: whether all of the study is recorded.
        left: whether it was told to go.
    """

    trained: int
    finished: bool
    left: bool


def study_in(folder: StudyFolder) -> Study:
    """The study that is declared in a folder, with the seeds and stages it has by now."""
    from optiscope.study.resolver import study_from_text

    declared = folder.declaration()
    study = study_from_text(declared["source"], f"{folder.path / 'study.json'}")
    stages = declared.get("until_decided")
    study = replace(study, seeds=tuple(declared["seeds"]), device=declared["device"])
    return study if stages is None else study.with_stages(stages["stages"])


def work(
    study: Study,
    folder: StudyFolder,
    *,
    data_dir: Path | None = None,
    seconds: float | None = None,
    max_trials: int | None = None,
    claims: Claims | None = None,
    say: Callable[[str], None] = lambda message: None,
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
    """
    return _Worker(study, folder, data_dir, claims or Claims(folder.path), say).run(
        seconds, max_trials
    )


class _Worker:
    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        data_dir: Path | None,
        claims: Claims,
        say: Callable[[str], None],
    ) -> None:
        self.plan, self.folder, self.data_dir = Plan(study), folder, data_dir
        self.claims, self.say = claims, say
        self.open: dict[str, Trial] = {}
        self.leaving, self.written = False, -1
        self.deaths: dict[str, int] = {}

    def run(self, seconds: float | None, max_trials: int | None) -> Worked:
        allow_children()
        end = None if seconds is None else time.monotonic() + max(seconds - MARGIN_SECONDS, 0.0)
        handlers = {n: signal.signal(n, self._leave) for n in _signals(seconds)}
        if seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, max(seconds - MARGIN_SECONDS, 0.1))
        trained = 0
        try:
            while not self.leaving and (max_trials is None or trained < max_trials):
                self._look()
                self._write_ledger()
                if not self.open or (end is not None and time.monotonic() > end):
                    break
                claim = self._claim()
                if claim is None:  # others train what is left
                    time.sleep(LOOK_SECONDS)
                    continue
                try:
                    with self.claims.beating(claim):
                        trained += self._train(self.open[claim.trial_hash], claim)
                finally:
                    self.claims.release(claim)
            self._look()
        finally:
            if seconds is not None:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self._write_ledger()
        return Worked(trained, not self.open, self.leaving)

    def _leave(self, number: int, _frame: FrameType | None) -> None:
        """Have the trial save its state, and take no other."""
        self.leaving = True
        signal_child(signal.SIGTERM)

    def _look(self) -> None:
        """Take in what is recorded by now, and what can be planned from it."""
        while True:
            self.open.update((trial.hash, trial) for trial in self.plan.ask())
            present = self.open.keys() & set(self.folder.store.hashes())
            runs = [self._usable(self.open[name]) for name in sorted(present)]
            told = [run for run in runs if run is not None]
            for run in told:
                self.plan.tell(run)
                del self.open[run.trial.hash]
            if not told:
                return

    def _write_ledger(self) -> None:
        """Write the parts of runs where more are known; every worker writes the same."""
        entries = self.plan.entries
        if len(entries) != self.written:
            self.folder.write_ledger(entries)
            self.written = len(entries)

    def _usable(self, trial: Trial) -> Run | None:
        return usable(self.folder.store, trial, self.say, metrics=self.plan.needs_curves)

    def _claim(self) -> Claim | None:
        """A trial that nobody has; workers begin at different ones."""
        names = list(self.open)
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
        if claim.lost >= MAX_LOST:
            return self._give_up(trial, f"{claim.lost} workers vanished with it")
        try:
            record_trials([trial], self.folder.store.root, self.data_dir)
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
        run = self._usable(trial)
        if run is None:
            missing = f"{trial.hash} missing"
            self.deaths[missing] = self.deaths.get(missing, 0) + 1
            if self.deaths[missing] >= MAX_MISSING:
                return self._give_up(trial, f"no record of it appeared after {MAX_MISSING} tries")
            return False
        self.say(f"{name}: {run.status}")
        return True

    def _give_up(self, trial: Trial, reason: str, status: Status = Status.CRASHED) -> bool:
        self.folder.store.write(Run.unstarted(trial, status, reason))
        self.say(f"{trial.optimizer} on {trial.problem}, seed {trial.seed}: {status}, {reason}")
        return True


def _signals(seconds: float | None) -> list[signal.Signals]:
    timer = [signal.SIGALRM] if seconds is not None else []
    return [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, *timer]


def requeue() -> str | None:
    """Ask Slurm to start this job again; what it answered where it refused."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    return done.stderr.strip() or None if done.returncode else None
