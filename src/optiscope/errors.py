"""Errors that a user can mend: one readable line each, with the exit status of the command line."""

from __future__ import annotations

import dis
from typing import ClassVar

__all__ = ["ExitCode", "OptiscopeError", "is_ctrl_c", "shorten"]


class ExitCode:
    """What the exit status of the command means."""

    OK = 0
    UNFINISHED = 1
    USAGE = 2
    DATA = 3
    STORE = 4
    INTERRUPTED = 130


class OptiscopeError(Exception):
    """An error that a user can mend.

    The message is one line: what was expected, what came, and what to do. A subclass may derive
    from a built-in exception as well, so that ``except ValueError`` goes on working.
    """

    exit_code: ClassVar[int] = ExitCode.USAGE
    """Exit status of `optiscope` when this error ends it."""


def shorten(value: object, limit: int = 80) -> str:
    """``repr(value)`` on one line, cut in the middle to at most ``limit`` characters."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} without repr: {type(error).__name__}>"
    if len(text) <= limit:
        return text
    head = (limit - 3) // 2
    return f"{text[:head]}...{text[len(text) - (limit - 3 - head) :]}"


def is_ctrl_c(error: BaseException) -> bool:
    """Whether an error that foreign code let through is Ctrl-C, which is nobody's fault.

    Ctrl-C comes between two instructions; code that says ``raise KeyboardInterrupt`` (or exits, or
    raises any other ``BaseException``) only pretends.
    """
    trace = error.__traceback__
    if not isinstance(error, KeyboardInterrupt) or trace is None:
        return isinstance(error, KeyboardInterrupt)
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] != dis.opmap["RAISE_VARARGS"]
