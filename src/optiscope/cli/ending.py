"""The process of a command ends with the command's own exit status, whatever imported code does.

An optimizer's module is anybody's code. It may register what runs at exit and claims success, leave
a thread that never ends, or end the process from a thread while the command is still at work.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from optiscope.errors import ExitCode, shorten

__all__ = ["Ending", "Watchdog"]

PATIENCE_SECONDS = 60.0  # for threads and exit handlers that imported code left behind
ENDINGS = ("_exit", "execv", "execve")

_exit = os._exit  # before anybody replaces it


class Ending:
    """How this process ends. Processes that are forked from it end as they like."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._status: int | None = None

    def guard(self) -> None:
        """Have calls that end or replace this process end it with the command's status instead.

        Before the command has one, they end it as unfinished, with a line that says so.
        """
        for name in ENDINGS:
            setattr(os, name, partial(self._ended, name, getattr(os, name)))

    def leave(self, status: int) -> None:
        """Note the status of the command, which is done, and wait for nothing without end."""
        self._status = status
        threading.Thread(target=self._follow, daemon=True).start()

    def _ended(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        if os.getpid() != self._process:
            return function(*arguments)
        if self._status is None:
            call = f"os.{name}({', '.join(map(shorten, arguments))})"
            _say(f"imported code ended the process by {call}: what is recorded stays")
        _flush()
        return _exit(ExitCode.UNFINISHED if self._status is None else self._status)

    def _follow(self) -> None:
        """End the process where something that was left behind keeps it from ending."""
        time.sleep(PATIENCE_SECONDS)
        left = [t.name for t in threading.enumerate() if not t.daemon and t.is_alive()]
        others = [name for name in left if name != threading.main_thread().name]
        what = f"thread {shorten(others[0])}" if others else "a function that runs at exit"
        _say(f"leaving without waiting for {what}, which imported code left behind")
        _flush()
        _exit(self._status or ExitCode.OK)


class Watchdog:
    """Ends this process, with words, where it hangs in code that no exception can reach.

    Such as a step that swallows whatever would end it, or that sleeps with signals blocked.

    Args:
        seconds: until it ends the process, unless it is told that work goes on.
    """

    def __init__(self, seconds: float) -> None:
        self._begun, self._changed = time.monotonic(), threading.Event()
        self._seconds: float | None = seconds
        threading.Thread(target=self._watch, daemon=True).start()

    def goes_on(self, seconds: float | None) -> None:
        """Something was done; end the process in so many seconds from now, or never."""
        self._begun, self._seconds = time.monotonic(), seconds
        self._changed.set()

    def _watch(self) -> None:
        while (seconds := self._seconds) is not None:
            left = self._begun + seconds - time.monotonic()
            if left <= 0:
                _say(f"nothing happened for {seconds:.0f} s and nothing could end it: it is killed")
                _flush()
                _exit(ExitCode.UNFINISHED)
            self._changed.wait(left)
            self._changed.clear()


def _say(message: str) -> None:
    with contextlib.suppress(Exception):
        print(f"optiscope: {message}", file=sys.stderr, flush=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
