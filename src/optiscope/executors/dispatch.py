"""Trials through an executor: submitted in lists, told one by one, with a policy for the dead.

The record store is the channel: a task returns nothing of weight, so that a lost future, a job that
was preempted or an answer that comes twice loses nothing. What counts is whether the record is
there.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass

from optiscope.cores import available_cores
from optiscope.errors import ExitCode, OptiscopeError, describe
from optiscope.executors.apart import ChildDied, ChildHung
from optiscope.records import Run, Status, Trial

__all__ = ["MAX_DEATHS", "MAX_MISSING", "Dispatch", "WorkerError"]

MAX_DEATHS = 5  # times a trial may take its process with it, alone
MAX_DEATH_SECONDS = 120.0  # of a trial that died at least twice, lost in processes that died
MAX_MISSING = 3  # times a task may end without an error and without a record
AHEAD = 2  # lists of trials that are submitted for each worker, so that none waits

Task = Callable[[Sequence[Trial]], object]
Recorded = Callable[[Trial], Run | None]


class WorkerError(OptiscopeError, RuntimeError):
    """Worker processes cannot run; nothing that is recorded is lost."""

    exit_code = ExitCode.UNFINISHED


@dataclass
class _Losses:
    """What became of the attempts at one trial that left no record."""

    deaths: int = 0  # alone, or such that nobody else can be to blame
    missing: int = 0
    seconds: float = 0.0
    suspect: bool = False
    told: bool = False

    @property
    def hopeless(self) -> bool:
        return self.deaths >= MAX_DEATHS or (self.deaths >= 2 and self.seconds > MAX_DEATH_SECONDS)


class Dispatch:
    """Runs trials through an executor and tells what became of each.

    Args:
        make_executor: makes anything with the contract of ``concurrent.futures.Executor``
            (``submit`` and ``shutdown``). A new one is made where one breaks.
        task: trains a list of trials of one problem and records each run; importable.
        recorded: the run of a trial where there is one that can be trusted.
        workers: lists of trials at a time.
        say: told, in words, what went wrong and what is done about it.

    A task that raises an :class:`OptiscopeError` (data are missing, the disk is full) ends it all.
    After any other error its trials run again, one by one and by themselves; one that took its
    process with it :data:`MAX_DEATHS` times has crashed.
    """

    def __init__(
        self,
        make_executor: Callable[[], Executor],
        task: Task,
        recorded: Recorded,
        *,
        workers: int,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._make_executor, self._task, self._recorded = make_executor, task, recorded
        self._workers, self._say = workers, say
        self._waiting: deque[list[Trial]] = deque()
        self._running: dict[Future[object], tuple[list[Trial], float]] = {}
        self._losses: dict[str, _Losses] = {}
        self._alive = False

    def submit(self, trials: Sequence[Trial]) -> None:
        """Add a list of trials of one problem, to be trained together."""
        self._waiting.append(list(trials))

    def outcomes(self) -> Generator[tuple[Trial, Run], None, None]:
        """Every trial with its run, in the order in which they end.

        What is submitted meanwhile is run as well.

        Raises:
            WorkerError: workers cannot do anything at all.
            TypeError: the executor runs trials in several threads.
            OptiscopeError: what a task raised.
        """
        broken = 0
        while self._waiting:
            pool = self._make_executor()
            try:
                _refuse_threads(pool)
                if broken:
                    _check_alive(pool)
                for outcome in self._drain(pool):
                    broken = 0
                    yield outcome
            except BrokenExecutor as error:
                self._end(pool)
                broken += 1
                if broken > 2 * MAX_DEATHS:  # in a row: it is the executor that breaks
                    raise WorkerError(_no_workers(error)) from error
                for outcome in self._take_back(pool):
                    broken = 0
                    yield outcome
            except BaseException:
                self._end(pool)
                raise
            else:
                pool.shutdown()

    def _drain(self, pool: Executor) -> Iterator[tuple[Trial, Run]]:
        """Run all that waits, and what is added meanwhile, until the pool breaks."""
        while self._waiting or self._running:
            self._fill(pool)
            finished, _ = wait(self._running, return_when=FIRST_COMPLETED)
            for future in finished:
                error = _error_of(future)
                if isinstance(error, BrokenExecutor):
                    raise error  # what else was running has its turn afterwards
                trials, begun = self._running.pop(future)
                yield from self._settle(pool, trials, error, time.monotonic() - begun)

    def _fill(self, pool: Executor) -> None:
        """Submit what may run now; a trial that is suspected of killing its worker runs alone."""
        while self._waiting and len(self._running) < AHEAD * self._workers:
            alone = self._suspected(self._waiting[0])
            if self._running and (
                alone or any(self._suspected(t) for t, _ in self._running.values())
            ):
                return
            future = pool.submit(self._task, self._waiting[0])
            self._running[future] = (self._waiting.popleft(), time.monotonic())

    def _suspected(self, trials: Sequence[Trial]) -> bool:
        return any(t.hash in self._losses and self._losses[t.hash].suspect for t in trials)

    def _parted(self, trials: Sequence[Trial]) -> tuple[list[tuple[Trial, Run]], list[Trial]]:
        """Trials that are recorded, with their runs, and those that are not."""
        runs = [(trial, self._recorded(trial)) for trial in trials]
        done = [(trial, run) for trial, run in runs if run is not None]
        return done, [trial for trial, run in runs if run is None]

    def _settle(
        self, pool: Executor, trials: list[Trial], error: BaseException | None, seconds: float
    ) -> Iterator[tuple[Trial, Run]]:
        """What a task that has ended left behind."""
        if isinstance(error, OptiscopeError):
            raise error
        done, left = self._parted(trials)
        yield from done
        for trial in left:
            losses = self._losses.setdefault(trial.hash, _Losses())
            if isinstance(error, ChildHung):
                yield trial, _lost(trial, f"its process {error} and was killed", Status.TIMED_OUT)
                continue
            if error is None:
                losses.missing += 1
                how = "ended without an error and without a record"
                if losses.missing >= MAX_MISSING:
                    yield trial, _lost(trial, f"its task {how} {losses.missing} times")
                    continue
            else:
                how = str(error) if isinstance(error, ChildDied) else f"failed: {_in_words(error)}"
                losses.seconds += seconds if losses.suspect else 0.0  # it ran alone
                losses.suspect = True
                losses.deaths += len(trials) == 1
                if losses.hopeless:
                    yield trial, _lost(trial, _obituary(how, losses))
                    continue
            self._tell(trial, how, losses)
            self._waiting.append([trial])
        self._alive |= error is None or isinstance(error, ChildDied | ChildHung)
        if not self._alive:
            _check_alive(pool)
            self._alive = True

    def _take_back(self, pool: Executor) -> Iterator[tuple[Trial, Run]]:
        """Whose fault it was that a pool broke shows when they run alone.

        A pool of processes begins trials in the order of submission, so that only the first can
        be at fault; of another executor anything that was submitted may have begun.
        """
        running = list(self._running.values())
        self._running.clear()
        again: list[list[Trial]] = []
        lost = 0
        for trials, begun in running:
            done, left = self._parted(trials)
            yield from done
            if not left:
                continue
            lost += 1
            began = lost <= self._workers or not isinstance(pool, ProcessPoolExecutor)
            if not began:
                again.append(left)
                continue
            for trial in left:
                losses = self._losses.setdefault(trial.hash, _Losses())
                losses.suspect = True
                if len(running) == 1 and len(trials) == 1:
                    losses.deaths += 1
                    losses.seconds += time.monotonic() - begun
                if losses.hopeless:
                    yield trial, _lost(trial, _obituary("was killed (out of memory?)", losses))
                    continue
                again.append([trial])
        self._waiting.extendleft(reversed(again))
        self._say("a worker process was killed; going on with a new one")

    def _end(self, pool: Executor) -> None:
        """Leave a pool at once; what its workers were doing is not recorded and will run again."""
        terminate = getattr(pool, "terminate", None)
        if terminate is not None:
            terminate()
            return
        for future in self._running:
            future.cancel()
        pool.shutdown(wait=False)

    def _tell(self, trial: Trial, how: str, losses: _Losses) -> None:
        """Say once of a trial what happens to it."""
        if not losses.told:
            losses.told = True
            name = f"{trial.optimizer} on {trial.problem}, seed {trial.seed}"
            self._say(f"{name}: its process {how}; trying again, up to {MAX_DEATHS} times")


def _obituary(how: str, losses: _Losses) -> str:
    """Why a trial is given up: "its process was killed 5 times (SIGKILL: out of memory?)"."""
    verb, bracket, rest = how.partition(" (")
    if how.startswith("failed"):
        return f"its worker {how} ({losses.deaths} times)"
    return f"its process {verb} {losses.deaths} times{bracket}{rest}"


def _lost(trial: Trial, reason: str, status: Status = Status.CRASHED) -> Run:
    """Run of a trial that no process could finish."""
    return Run.unstarted(trial, status, reason, {"cores": available_cores()})


def _error_of(future: Future[object]) -> BaseException | None:
    """What a future ended with, cancellation included."""
    if future.cancelled():
        return CancelledError("cancelled")
    return future.exception()


def _in_words(error: BaseException) -> str:
    return describe(error)[:300]


def _refuse_threads(pool: Executor) -> None:
    if isinstance(pool, ThreadPoolExecutor) and pool._max_workers > 1:
        raise TypeError(
            "expected an executor of processes, or one thread, got a ThreadPoolExecutor of "
            f"{pool._max_workers}: trials in threads would share random numbers, thread counts "
            "and clocks"
        )


def _check_alive(pool: Executor) -> None:
    """Raise WorkerError where an executor cannot do anything at all, or not with this package."""
    try:
        pool.submit(_process).result()
    except Exception as error:
        raise WorkerError(_no_workers(error)) from error


def _process() -> int:
    """Number of the process that runs this; workers without this package cannot."""
    return os.getpid()


def _no_workers(error: BaseException) -> str:
    return (
        f"worker processes die before they begin ({_in_words(error)}): look at limits of memory "
        "and processes"
    )
