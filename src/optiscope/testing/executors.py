"""Conformance suite for an executor: what any of them must do to run the trials of a study.

Subclass it in a test file and let pytest collect it::

    class TestMine(ExecutorConformance):
        def make(self, workers):
            return my_cluster.executor(workers)

Its tasks write empty records and train nothing, so that it takes seconds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from optiscope.errors import OptiscopeError
from optiscope.executors import Dispatch, WorkerError
from optiscope.executors.dispatch import MAX_DEATHS, MAX_MISSING
from optiscope.records import Run, RunStore, Status, Trial

__all__ = ["ExecutorConformance", "ForeignError"]


class ForeignError(Exception):
    """What an engine raises that has lost a task."""


def _trials(count: int) -> list[Trial]:
    return [Trial("none", 1, "none", {}, seed, 1, 1) for seed in range(count)]


def _attempt(trial: Trial, folder: Path) -> int:
    """Count an attempt at a trial, from 1."""
    attempts = folder / "attempts" / trial.hash
    attempts.mkdir(parents=True, exist_ok=True)
    number = len(list(attempts.iterdir())) + 1
    (attempts / f"{number}-{time.time_ns()}").touch()
    return number


def record(trials: Sequence[Trial], folder: Path) -> None:
    """Record every trial; those of higher seeds take longer."""
    for trial in trials:
        _attempt(trial, folder)
        time.sleep(0.02 * (trial.seed % 3))
        RunStore(folder / "runs").write(Run.unstarted(trial, Status.FINISHED, "done"))


def record_second_time(trials: Sequence[Trial], folder: Path, odd: bool = True) -> None:
    """Fail at the first attempt at trials of odd seeds with an error that nobody knows."""
    for trial in trials:
        if trial.seed % 2 == odd and _attempt(trial, folder) == 1:
            raise ForeignError("the node went away")
    record(trials, folder)


def never_record(trials: Sequence[Trial], folder: Path) -> None:
    """Fail at every attempt at the trial of seed 0."""
    if any(trial.seed == 0 for trial in trials):
        _attempt(trials[0], folder)
        raise ForeignError("the node went away")
    record(trials, folder)


def lose(trials: Sequence[Trial], folder: Path) -> None:
    """End without an error and without a record of the trial of seed 0."""
    record([trial for trial in trials if trial.seed], folder)
    if any(trial.seed == 0 for trial in trials):
        _attempt(trials[0], folder)


def refuse(trials: Sequence[Trial], folder: Path) -> None:
    """Say what a user can mend."""
    raise OptiscopeError("the data set is not here: download it")


class ExecutorConformance:
    """Every trial once, in whatever order; deaths counted; errors for the user told; an end.

    Attributes:
        workers: trials at a time.
        count: trials of each test.
    """

    workers: ClassVar[int] = 2
    count: ClassVar[int] = 7

    def make(self, workers: int) -> Executor:
        """A fresh executor."""
        raise NotImplementedError

    def run(
        self,
        task: Callable[..., None],
        folder: Path,
        lists: Sequence[Sequence[Trial]] | None = None,
    ) -> tuple[dict[int, Run], list[str]]:
        """Runs by seed, and what was said."""
        store, said = RunStore(folder / "runs"), list[str]()

        def recorded(trial: Trial) -> Run | None:
            run = store.read(trial.hash)
            return run if isinstance(run, Run) else None

        dispatch = Dispatch(
            lambda: self.make(self.workers),
            partial(task, folder=folder),
            recorded,
            workers=self.workers,
            say=said.append,
        )
        for trials in lists or [[trial] for trial in _trials(self.count)]:
            dispatch.submit(trials)
        seen = Counter[int]()
        runs: dict[int, Run] = {}
        for trial, run in dispatch.outcomes():
            seen[trial.seed] += 1
            runs[trial.seed] = run
        assert set(seen.values()) <= {1}, "a trial was told twice"
        return runs, said

    def test_every_trial_runs_once(self, tmp_path: Path) -> None:
        """In whatever order they end, each has one record and one attempt."""
        runs, said = self.run(record, tmp_path)
        assert sorted(runs) == list(range(self.count))
        assert all(run.status is Status.FINISHED for run in runs.values())
        assert not said
        attempts = (tmp_path / "attempts").iterdir()
        assert [len(list(path.iterdir())) for path in attempts] == [1] * self.count

    def test_lists_of_trials_run(self, tmp_path: Path) -> None:
        """A list of trials is one task, and each of them has its record."""
        trials = _trials(self.count)
        runs, _ = self.run(record, tmp_path, [trials[:3], trials[3:]])
        assert sorted(runs) == list(range(self.count))

    def test_a_foreign_error_is_one_death(self, tmp_path: Path) -> None:
        """The trial runs again; its record is that of any other."""
        runs, said = self.run(record_second_time, tmp_path)
        assert sorted(runs) == list(range(self.count))
        assert all(run.status is Status.FINISHED for run in runs.values())
        assert any("ForeignError: the node went away" in line for line in said)

    def test_five_deaths_are_a_crash_in_words(self, tmp_path: Path) -> None:
        """The others finish."""
        runs, _ = self.run(never_record, tmp_path)
        assert runs[0].status is Status.CRASHED
        assert "ForeignError: the node went away" in runs[0].reason
        assert f"{MAX_DEATHS} times" in runs[0].reason
        assert all(runs[seed].status is Status.FINISHED for seed in range(1, self.count))
        attempts = tmp_path / "attempts" / _trials(1)[0].hash
        assert len(list(attempts.iterdir())) == MAX_DEATHS

    def test_a_record_that_never_appears_is_given_up(self, tmp_path: Path) -> None:
        """After so many tries, in words."""
        runs, _ = self.run(lose, tmp_path)
        assert runs[0].status is Status.CRASHED
        assert f"without a record {MAX_MISSING} times" in runs[0].reason

    def test_what_the_user_can_mend_ends_it(self, tmp_path: Path) -> None:
        """In the words of the error."""
        with pytest.raises(OptiscopeError, match="download it") as caught:
            self.run(refuse, tmp_path)
        assert not isinstance(caught.value, WorkerError)

    def test_what_is_submitted_meanwhile_runs(self, tmp_path: Path) -> None:
        """As a study's plan does once it knows more."""
        store = RunStore(tmp_path / "runs")
        first, *rest = _trials(3)

        def recorded(trial: Trial) -> Run | None:
            run = store.read(trial.hash)
            return run if isinstance(run, Run) else None

        dispatch = Dispatch(
            lambda: self.make(self.workers),
            partial(record, folder=tmp_path),
            recorded,
            workers=self.workers,
        )
        dispatch.submit([first])
        told = []
        for trial, _ in dispatch.outcomes():
            told.append(trial.seed)
            if rest:
                dispatch.submit([rest.pop()])
        assert sorted(told) == [0, 1, 2]
