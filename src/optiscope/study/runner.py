"""Running a study: tune, then report on fresh seeds, resume after any interruption."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import takewhile
from math import isfinite
from pathlib import Path

from optiscope.errors import ExitCode, OptiscopeError
from optiscope.executors import available_cores, process_pool
from optiscope.optim import registry
from optiscope.problems import Problem
from optiscope.problems.data_at_hand import require_data
from optiscope.records import (
    Entry,
    Run,
    Status,
    StudyFolder,
    Trial,
    higher_is_better,
)
from optiscope.study.redeclaration import check_redeclared
from optiscope.study.resolver import corners
from optiscope.study.study import Algorithm, Study
from optiscope.study.tuning import Tuning
from optiscope.study.work import record_trials
from optiscope.train.loop import TrialError, check_batch
from optiscope.train.schedule import anneals_twice, check_schedule

__all__ = ["Event", "WorkerError", "run_study"]

DEATHS_ALONE = 5  # times a trial may take its process with it, alone in the pool


class WorkerError(OptiscopeError, RuntimeError):
    """Worker processes cannot run; nothing that is recorded is lost."""

    exit_code = ExitCode.UNFINISHED


@dataclass(frozen=True)
class Event:
    """Progress of a study: trials done and planned, and what just happened, in words."""

    done: int
    total: int
    message: str
    warning: bool = False


@dataclass
class _Pair:
    """One algorithm on one problem: its tuning, then its reporting runs."""

    algorithm: Algorithm
    problem: Problem
    tuning: Tuning | None
    entries: list[Entry] = field(default_factory=list)
    open_points: dict[int, list[Trial]] = field(default_factory=dict)
    reporting: bool = False


def run_study(
    study: Study,
    folder: Path | str,
    *,
    workers: int | None = None,
    data_dir: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    executor: Callable[[int], Executor] = process_pool,
    retry_crashed: bool = False,
) -> StudyFolder:
    """Run what of ``study`` is not yet recorded in ``folder``.

    Stopping it at any moment and calling it again gives the same records as one undisturbed call.
    Damaged records are set aside, reported through ``on_event``, and their trials run again.

    Args:
        study: from :func:`optiscope.study.load_study`.
        folder: where records, ledger and declaration are kept.
        workers: trials at a time; by default as many as cores allow at the study's threads.
        data_dir: where the data sets are.
        on_event: told of every trial that is done.
        executor: ``executor(workers)`` makes anything with the contract of
            ``concurrent.futures.Executor`` that can be entered as a context.
        retry_crashed: set records of crashed runs aside and run their trials again, once; a crash
            is an outcome otherwise.

    Raises:
        StoreError: the folder cannot be written, holds another study, or results of this one with
            another metric, level, margin, selection or without its seeds; what is recorded stays.
        MissingData: a data set is not at hand; nothing has run.
        TrialError: a trial cannot begin (see :func:`optiscope.train.run_trial`).
        WorkerError: worker processes die before they begin.
        TypeError: the executor runs trials in several threads.
    """
    for problem in study.problems:
        require_data(problem, data_dir)
    for problem in study.problems:
        _require_a_batch(problem, study.batch_sizes[problem.name], data_dir)
        _require_schedules(study, problem, data_dir)
    _warn_of_annealing(study, on_event)
    kept = StudyFolder(folder)
    looks = check_redeclared(study, kept)
    kept.write_declaration(study.to_dict() | ({"looked_at": looks} if looks else {}))
    kept.store.sweep()
    count = workers or _workers(study)
    if retry_crashed:
        _set_crashed_aside(kept, on_event)
    _Runner(study, kept, data_dir, on_event).run(lambda: executor(count), count)
    return kept


def _workers(study: Study) -> int:
    """As many as the cores can serve, and one for a GPU, whose memory they would share."""
    return 1 if study.device == "cuda" else max(1, available_cores() // study.threads)


def _warn_of_annealing(study: Study, on_event: Callable[[Event], None]) -> None:
    for algorithm in study.algorithms:
        if algorithm.schedule and registry.get(algorithm.optimizer).horizon is not None:
            instead = 'give it schedule = "none"'
            message = anneals_twice(algorithm.label, algorithm.schedule, instead)
            on_event(Event(0, 0, message, warning=True))


def _require_a_batch(problem: Problem, batch_size: int, data_dir: Path | None) -> None:
    """Raise TrialError where a batch that is not the problem's own is larger than its data."""
    if batch_size > problem.batch_size:
        check_batch(batch_size, len(problem.data(data_dir).train), problem.name)


def _set_crashed_aside(folder: StudyFolder, on_event: Callable[[Event], None]) -> None:
    for run in folder.store.scan():
        if isinstance(run, Run) and run.status is Status.CRASHED:
            aside = folder.store.set_aside(run.trial.hash, even_good=True)
            message = f"a run that crashed ({run.reason}) moved to {aside}: its trial runs again"
            on_event(Event(0, 0, message, warning=True))


def _require_schedules(study: Study, problem: Problem, data_dir: Path | None) -> None:
    """Raise TrialError where a schedule of torch's ends before the problem's horizon does."""
    scheduled = [a for a in study.algorithms if a.schedule and a.schedule["name"] != "linear_decay"]
    if not scheduled:
        return
    epochs = study.epochs[problem.name]
    steps = epochs * (len(problem.data(data_dir).train) // study.batch_sizes[problem.name])
    for algorithm in scheduled:
        point = corners(algorithm.space)[0]
        optimizer = registry.bind(algorithm.optimizer, {**algorithm.fixed, **point}).on_probe()
        try:
            check_schedule(algorithm.schedule or {}, optimizer, steps=steps, epochs=epochs)
        except ValueError as error:
            raise TrialError(
                f"{algorithm.label} on {problem.name}, whose horizon is {steps} steps: {error}"
            ) from None


class _Runner:
    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        data_dir: Path | None,
        on_event: Callable[[Event], None],
    ) -> None:
        self.study, self.folder, self.data_dir, self.on_event = study, folder, data_dir, on_event
        self.pairs = [
            _Pair(algorithm, problem, self._tuning_of(algorithm, problem))
            for problem in study.problems
            for algorithm in study.algorithms
        ]
        tuning_runs = sum(p.algorithm.budget * len(study.tuning_seeds) for p in self.pairs)
        self.total = tuning_runs + len(self.pairs) * len(study.seeds)
        self.done: set[tuple[int, str]] = set()
        self.ready: deque[tuple[_Pair, Trial]] = deque()
        self.suspects: set[str] = set()
        self.deaths_alone: Counter[str] = Counter()

    def _tuning_of(self, algorithm: Algorithm, problem: Problem) -> Tuning | None:
        if not algorithm.tuned:
            return None
        return Tuning(
            algorithm,
            [self.study.name, problem.name],
            lower_is_better=not higher_is_better(self.study.select),
        )

    def run(self, make_executor: Callable[[], Executor], workers: int) -> None:
        for pair in self.pairs:
            self._advance(pair)
        self._write_ledger()
        killed = False
        while self.ready:
            pool = make_executor()
            _refuse_threads(pool)
            try:
                if killed:
                    _check_alive(pool)
                self._drain(pool, workers)
            except BrokenExecutor:
                killed = True
                self._say("a worker process was killed; going on with a new one", warning=True)
                _end(pool)
            except BaseException:
                _end(pool)
                raise
            else:
                pool.shutdown()
        self._write_ledger()

    def _drain(self, pool: Executor, workers: int) -> None:
        """Run all that is ready, and what becomes ready meanwhile."""
        running: dict[Future[None], tuple[_Pair, Trial]] = {}
        try:
            while self.ready or running:
                for pair, trial in self._next(running, 2 * workers):
                    future = pool.submit(
                        record_trials, [trial], self.folder.store.root, self.data_dir
                    )
                    running[future] = (pair, trial)
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    self._take_in(*running.pop(future))
        except BrokenExecutor:
            self._requeue(running, workers)
            raise

    def _next(
        self, running: dict[Future[None], tuple[_Pair, Trial]], at_most: int
    ) -> Iterator[tuple[_Pair, Trial]]:
        """Trials to submit now; one that was there when a process died runs alone."""
        while self.ready and len(running) < at_most:
            if any(trial.hash in self.suspects for _, trial in running.values()):
                return
            if self.ready[0][1].hash in self.suspects and running:
                return
            yield self.ready[0]
            self.ready.popleft()  # only now: had the submission failed, it would still be waiting

    def _requeue(self, running: dict[Future[None], tuple[_Pair, Trial]], workers: int) -> None:
        """Take back what was submitted when a process died; whose fault it was shows when alone.

        Trials begin in the order of submission, so that only the first ``workers`` can be at fault.
        """
        alone = len(running) == 1
        store = self.folder.store
        lost = [x for x in running.values() if store.read(x[1].hash, metrics=False) is None]
        suspects = {trial.hash for _, trial in lost[:workers]}
        for pair, trial in reversed(running.values()):
            if trial.hash in suspects:
                self.suspects.add(trial.hash)
                self.deaths_alone[trial.hash] += alone
                if self.deaths_alone[trial.hash] == DEATHS_ALONE:
                    self.folder.store.write(_killed(trial))
                    self._take_in(pair, trial)
                    continue
            self.ready.appendleft((pair, trial))

    def _advance(self, pair: _Pair) -> None:
        """Plan what of a pair can be planned now, taking in what is already recorded."""
        tuning = pair.tuning
        while tuning is not None and (proposal := tuning.ask()) is not None:
            index, point = proposal
            trials = [self._tuning_trial(pair, point, seed) for seed in self.study.tuning_seeds]
            pair.open_points[index] = trials
            for trial in trials:
                self._enter(pair, trial, "tuning", index, point)
            if not self._settle(pair, index):
                self._queue(pair, trials)
        if (tuning is None or tuning.done) and not pair.reporting:
            pair.reporting = True
            point = tuning.best()[1] if tuning else {}
            trials = [
                self.study.trial(pair.algorithm, pair.problem, point, seed)
                for seed in self.study.seeds
            ]
            for trial in trials:
                self._enter(pair, trial, "reporting", -1, point)
            self._queue(pair, [t for t in trials if self._recorded(pair, t) is None])

    def _tuning_trial(self, pair: _Pair, point: dict[str, object], seed: int) -> Trial:
        """The trial of a proposal; with a pruner it carries the curves of those before it."""
        trial = self.study.trial(pair.algorithm, pair.problem, point, seed)
        if pair.algorithm.pruner is None:
            return trial
        split, _, name = self.study.select.partition("_")
        past = []
        for entry in pair.entries:
            if entry.role == "tuning" and entry.seed == seed:
                run = self.folder.store.read(entry.trial_hash)
                if isinstance(run, Run):
                    complete = run.status.complete and not run.pruned
                    values = list(takewhile(isfinite, run.curve(split, name)[1][1:]))
                    past.append({"values": values, "complete": complete})
        pruning = {"pruner": pair.algorithm.pruner, "metric": self.study.select, "past": past}
        return replace(trial, pruning=pruning)

    def _enter(
        self, pair: _Pair, trial: Trial, role: str, index: int, point: dict[str, object]
    ) -> None:
        entry = Entry(
            trial.hash,
            pair.algorithm.label,
            pair.problem.name,
            role,
            index,
            {**pair.algorithm.fixed, **point},
            trial.seed,
        )
        pair.entries.append(entry)

    def _queue(self, pair: _Pair, trials: list[Trial]) -> None:
        self.ready.extend((pair, t) for t in trials if (id(pair), t.hash) not in self.done)

    def _recorded(self, pair: _Pair, trial: Trial) -> Run | None:
        """The recorded run, if there is one that can be trusted; a damaged one is set aside."""
        warn = partial(self._say, warning=True)
        found = self.folder.store.outcome(trial.hash, warn, metrics=False)
        if found is not None:
            self.done.add((id(pair), trial.hash))
        return found

    def _settle(self, pair: _Pair, index: int) -> bool:
        """Tell the tuning of a point whose runs are all recorded."""
        runs = [self._recorded(pair, trial) for trial in pair.open_points[index]]
        complete = [run for run in runs if run is not None]
        if len(complete) < len(runs) or pair.tuning is None:
            return False
        select = self.study.select
        values = [
            run.final.get(select) if run.status.complete and not run.pruned else None
            for run in complete
        ]
        pair.tuning.tell(index, values)
        del pair.open_points[index]
        return True

    def _take_in(self, pair: _Pair, trial: Trial) -> None:
        """Go on after a trial has been recorded."""
        run = self._recorded(pair, trial)
        if run is None:
            self.ready.append((pair, trial))
            return
        self._say(f"{pair.algorithm.label} on {pair.problem.name}: {run.status}")
        planned = len(pair.entries)
        for index in [i for i, trials in pair.open_points.items() if trial in trials]:
            self._settle(pair, index)
        self._advance(pair)
        if len(pair.entries) > planned:
            self._write_ledger()

    def _write_ledger(self) -> None:
        self.folder.write_ledger([entry for pair in self.pairs for entry in pair.entries])

    def _say(self, message: str, *, warning: bool = False) -> None:
        self.on_event(Event(len(self.done), self.total, message, warning))


def _refuse_threads(pool: Executor) -> None:
    if isinstance(pool, ThreadPoolExecutor) and pool._max_workers > 1:
        raise TypeError(
            "expected an executor of processes, or one thread, got a ThreadPoolExecutor of "
            f"{pool._max_workers}: trials in threads would share random numbers, thread counts "
            "and clocks"
        )


def _check_alive(pool: Executor) -> None:
    """Raise WorkerError where a fresh pool cannot do anything at all."""
    try:
        pool.submit(os.getpid).result()
    except BrokenExecutor as error:
        raise WorkerError(
            "worker processes die before they begin: look at limits of memory and processes"
        ) from error


def _end(pool: Executor) -> None:
    """Leave a pool at once; what its workers were doing is not recorded and will run again."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.terminate()
    pool.shutdown(wait=False, cancel_futures=True)


def _killed(trial: Trial) -> Run:
    """Record of a trial whose process was killed every time."""
    return Run(
        trial=trial,
        status=Status.CRASHED,
        reason=f"its process was killed {DEATHS_ALONE} times (out of memory?)",
        steps=0,
        seconds={},
        counts={"gradient_evaluations": 0, "hessian_products": 0},
        peak_memory_bytes=None,
        environment={"cores": os.cpu_count()},
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
