"""The conformance suite on our pool, on one thread, and on an executor that does its worst."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from optiscope.executors import process_pool
from optiscope.testing.executors import ExecutorConformance, ForeignError


class TestProcessPool(ExecutorConformance):
    def make(self, workers: int) -> Executor:
        return process_pool(workers)


class TestOneThread(ExecutorConformance):
    workers = 1

    def make(self, workers: int) -> Executor:
        return ThreadPoolExecutor(1)


class Wicked(Executor):
    """Loses tasks, ends them in any order, runs some twice, and cannot be left at once."""

    def __init__(self) -> None:
        self.random = random.Random(0)
        self.tasks: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.lock = threading.Lock()
        self.submitted = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.submitted += 1
        number = self.submitted
        threading.Timer(0.01, self._run, (future, number, lambda: fn(*args, **kwargs))).start()
        return future

    def _run(self, future: Future[Any], number: int, task: Callable[[], Any]) -> None:
        with self.lock:  # one at a time, in the order of the timers
            if not future.set_running_or_notify_cancel():
                return
            if number % 5 == 2:
                future.set_exception(ForeignError("KilledWorker: lost"))
                return
            try:
                future.set_result(task())
            except Exception as error:
                future.set_exception(error)

    def shutdown(self, wait: bool = True) -> None:  # type: ignore[override]
        """Knows no ``cancel_futures``."""


class TestWicked(ExecutorConformance):
    def make(self, workers: int) -> Executor:
        return Wicked()

    def test_every_trial_runs_once(self, tmp_path: Any) -> None:
        """It loses some: they have a second attempt."""
        from optiscope.testing.executors import record

        runs, said = self.run(record, tmp_path)
        assert sorted(runs) == list(range(self.count))
        assert any("KilledWorker" in line for line in said)

    def test_five_deaths_are_a_crash_in_words(self, tmp_path: Any) -> None:
        """Whichever of its errors it names."""
        from optiscope.testing.executors import never_record

        runs, _ = self.run(never_record, tmp_path)
        assert runs[0].reason.startswith("its worker failed")


class TestPlainPool(ExecutorConformance):
    """The standard library's own, whose workers fork nothing."""

    def make(self, workers: int) -> Executor:
        return ProcessPoolExecutor(workers)
