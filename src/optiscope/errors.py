"""Errors that a user can mend: one readable line each, with the exit status of the command line."""

from __future__ import annotations

import dis
import re
from typing import ClassVar

__all__ = [
    "ExitCode",
    "OptiscopeError",
    "describe",
    "is_ctrl_c",
    "message_of",
    "one_line",
    "shorten",
]


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

    def __str__(self) -> str:
        """The message on one line, with long quotations cut."""
        return one_line(super().__str__())

    @property
    def lines(self) -> list[str]:
        """The message as a terminal shows it: one line, or one for each of several things."""
        return [str(self)]


def shorten(value: object, limit: int = 80) -> str:
    """``repr(value)`` on one line, cut in the middle to at most ``limit`` characters."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} without repr: {type(error).__name__}>"
    return _cut(" ".join(text.split()) if "\n" in text else text, limit)


def one_line(text: str) -> str:
    """A message on one line that every terminal can show.

    White space becomes single blanks, what cannot be printed is written as an escape, quotations
    are cut to 80 characters, words to 400 and the whole to 2,000.
    """
    text = " ".join(text.split())
    if not text.isprintable():
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(text) > 80:
        text = _QUOTED.sub(lambda quoted: _cut(quoted[0], 80), text)
        text = _LONG_WORD.sub(lambda word: _cut(word[0], 400), text)
    return _cut(text, 2000)


def _cut(text: str, limit: int) -> str:
    """``text`` with its middle left out where it is longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    head = (limit - 3) // 2
    return f"{text[:head]}...{text[len(text) - (limit - 3 - head) :]}"


_QUOTED = re.compile(r"(?<!\w)'[^']{79,}'")
_LONG_WORD = re.compile(r"\S{401,}")


def message_of(error: BaseException) -> str:
    """What an error of foreign code says, on one line; empty where it says nothing.

    Its ``__str__`` is foreign code too, and may raise or return what is no text.
    """
    try:
        return one_line(str(error))
    except BaseException as second:
        if is_ctrl_c(second):
            raise
        return f"its message raises {type(second).__name__}"


def describe(error: BaseException) -> str:
    """Kind and message of an error of foreign code on one line: ``ValueError: no such rate``."""
    return ": ".join(filter(None, [type(error).__name__, message_of(error)]))


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
