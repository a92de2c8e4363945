"""A pool of processes on this machine that outlives its workers and not its parent."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.queues import SimpleQueue
from types import ModuleType
from typing import Any

from optiscope.executors.apart import allow_children, follow_parent

__all__ = ["WorkerPool", "process_pool"]


class WorkerPool(ProcessPoolExecutor):
    """A pool of fresh processes that can be left at once.

    Its workers only fork: each trial has a child to itself where the system can (Linux).

    Args:
        workers: processes.
        slots: variables of the environment, a set for each worker; none where empty.
    """

    def __init__(self, workers: int, slots: Sequence[Mapping[str, str]] = ()) -> None:
        context = _FreshContext()
        free = None
        if slots:
            free = context.SimpleQueue()
            for slot in slots[:workers]:
                free.put(dict(slot))
        super().__init__(
            workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(os.getpid(), free),
        )

    def terminate(self) -> None:
        """End workers and what they are doing; nobody waits for it."""
        for process in list((self._processes or {}).values()):
            process.terminate()
        self.shutdown(wait=False, cancel_futures=True)


def process_pool(workers: int) -> WorkerPool:
    """Executor of ``workers`` fresh processes for functions of importable modules.

    Workers leave Ctrl-C to the parent, and end when the parent is gone, however it went. They do
    not run the parent's script, which therefore needs no ``if __name__ == "__main__":``.
    """
    return WorkerPool(workers)


class _FreshProcess(SpawnProcess):
    """A spawned process that is not told of the parent's main module, so as not to run it again."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class _FreshContext(SpawnContext):
    Process = _FreshProcess


def _start_worker(parent: int, slots: SimpleQueue[dict[str, str]] | None = None) -> None:
    if slots is not None:
        os.environ.update(slots.get())  # before anything of a GPU is touched
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_parent(parent)
    allow_children()
