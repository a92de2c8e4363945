"""Ending a step that hangs, and telling Ctrl-C from code that only pretends to be interrupted."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

from optiscope.errors import is_ctrl_c

__all__ = ["TimeUp", "deadline", "raised_by_itself", "sees_ctrl_c"]

REPEAT_SECONDS = 1.0  # code that swallows what ends it is told again


class TimeUp(BaseException):
    """A step did not end within the time that a trial may take.

    Not an ``Exception``, so that a step that catches everything that goes wrong cannot catch it.
    """


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Raise TimeUp in what is inside once it has taken so long; None sets no limit.

    In the main thread by a timer of the system, which also ends a sleep or a wait; elsewhere, and
    where there is no such timer, as soon as the thread runs Python code again.
    """
    if seconds is None:
        yield
        return
    main = threading.current_thread() is threading.main_thread()
    if main and hasattr(signal, "setitimer"):
        with _alarm(seconds):
            yield
    else:
        with _watchdog(seconds):
            yield


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    inside = True

    def ring(_number: int, _frame: FrameType | None) -> None:
        if inside:
            raise TimeUp

    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), REPEAT_SECONDS)
    try:
        try:
            yield
        finally:
            inside = False  # an alarm at this very moment must not stop what comes now
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, left, interval)  # the caller's own, if there was one
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def _watchdog(seconds: float) -> Iterator[None]:
    thread, done = threading.get_ident(), threading.Event()

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread), ctypes.py_object(TimeUp)
            )
            wait = REPEAT_SECONDS

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)


def sees_ctrl_c() -> bool:
    """Whether Ctrl-C can reach this thread; workers ignore it, and only a main thread gets it."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def raised_by_itself(error: BaseException, within: CodeType, *, but: CodeType) -> bool:
    """Whether code called by ``within``, and not ``but`` below it, raised an error on purpose."""
    trace, inner = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code in (within, but):
            inner = trace.tb_frame.f_code
        trace = trace.tb_next
    return inner is within and not is_ctrl_c(error)
