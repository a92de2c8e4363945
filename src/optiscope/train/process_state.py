"""What a trial may do to its process: timers, signals, its end, and the standard streams."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

__all__ = ["exits_refused", "restore_signals", "signals", "streams_kept", "timers"]


def timers() -> set[int]:
    """Those timers of this process that run."""
    if not hasattr(signal, "getitimer"):
        return set()
    kinds = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    return {kind for kind in kinds if signal.getitimer(kind)[0] > 0}


def signals() -> dict[int, Any]:
    """Handlers of all signals; only the main thread may set any."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def restore_signals(handlers: dict[int, Any]) -> None:
    """Give signals their handlers again."""
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, handler)


_refusing = {"depth": 0, "process": 0}
_lock = threading.Lock()
ENDINGS = ("_exit", "execv", "execve")
_ENDINGS = {name: getattr(os, name) for name in ENDINGS}


@contextmanager
def exits_refused() -> Iterator[None]:
    """Have calls that end or replace this process without a word raise SystemExit instead.

    Only here: in a process that was forked from this one they do what they say.
    """
    with _lock:
        _refusing["depth"] += 1
        _refusing["process"] = os.getpid()
        for name, function in _ENDINGS.items():
            setattr(os, name, partial(_refuse_ending, name, function))
    try:
        yield
    finally:
        with _lock:
            _refusing["depth"] -= 1
            if not _refusing["depth"]:
                for name, function in _ENDINGS.items():
                    setattr(os, name, function)


def _refuse_ending(name: str, function: Callable[..., object], *arguments: Any) -> object:
    if os.getpid() != _refusing["process"] or not _refusing["depth"]:  # kept for later
        return function(*arguments)
    raise SystemExit(f"os.{name}({', '.join(map(repr, arguments))})")


@contextmanager
def streams_kept() -> Iterator[None]:
    """Open the standard streams again where they are closed or led elsewhere inside."""
    copies: dict[int, int] = {}
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):  # it is not open
            copies[number] = os.dup(number)
    numbers = {name: _number(getattr(sys, name)) for name in ("stdout", "stderr")}
    try:
        yield
    finally:
        for number, copy in copies.items():
            with contextlib.suppress(OSError):
                if not _same_file(number, copy):
                    os.dup2(copy, number)
                os.close(copy)
        for name, number in numbers.items():
            stream = getattr(sys, name)
            if number in copies and getattr(stream, "closed", False):
                again = open(  # noqa: SIM115 - it takes the place of the stream
                    number, "w", encoding="utf-8", errors="replace", closefd=False
                )
                setattr(sys, name, again)
                if getattr(sys, f"__{name}__") is stream:
                    setattr(sys, f"__{name}__", again)


def _number(stream: Any) -> int:
    """Descriptor of a stream; -1 where it has none."""
    try:
        return int(stream.fileno())
    except Exception:
        return -1


def _same_file(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False
