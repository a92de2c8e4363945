"""What is wrong with a study's file: every fault with its place, told all at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from optiscope.errors import OptiscopeError, one_line
from optiscope.study.toml_lines import Path, line_of

__all__ = ["Fault", "Faults", "StudyError"]

MOST_TOLD = 20
"""Faults that are told one by one; of more, the rest is counted."""


class Fault(NamedTuple):
    """One fault of a study's file.

    Attributes:
        line: 1-based, where it is known.
        message: what is wrong and what to do, on one line.
    """

    line: int | None
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


class StudyError(OptiscopeError, ValueError):
    """A study that cannot be run as declared: the message has every fault, with line numbers.

    Attributes:
        faults: all that were found, by line; empty where there is no file to speak of.
    """

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)

    @classmethod
    def of(cls, origin: str, faults: Sequence[Fault]) -> StudyError:
        """The error of a file with these faults, one at least."""
        ordered = sorted(dict.fromkeys(faults), key=lambda fault: fault.line or 0)
        if len(ordered) == 1:
            (fault,) = ordered
            where = f"{origin}, line {fault.line}" if fault.line else origin
            return cls(f"{where}: {fault.message}", ordered)
        told = "; ".join(str(fault) for fault in ordered[:MOST_TOLD])
        return cls(f"{origin}: {len(ordered)} faults: {told}", ordered)

    @property
    def lines(self) -> list[str]:
        """The message for a terminal: where there are several faults, each on a line of its own."""
        if len(self.faults) < 2:
            return [str(self)]
        head = str(self).partition(": line")[0].partition(" faults")[0]
        told = [f"  {one_line(str(fault))}" for fault in self.faults[:MOST_TOLD]]
        more = len(self.faults) - MOST_TOLD
        return [f"{head} faults", *told, *([f"  and {more} more"] if more > 0 else [])]


class Faults:
    """The faults of a file as they are found.

    A check that finds one gives up (:meth:`fail`), and the next one goes on (:meth:`collecting`).
    """

    def __init__(self, text: str, origin: str) -> None:
        self.text, self.origin = text, origin
        self.found: list[Fault] = []

    def fail(self, path: Path, message: str) -> NoReturn:
        """Note a fault at a path in the file, and leave the check that found it."""
        self.found.append(Fault(line_of(self.text, path), message))
        raise _Found

    def collecting(self) -> suppress:
        """A check runs in it; what comes after goes on whatever it found."""
        return suppress(_Found)

    def refuse(self) -> None:
        """Raise StudyError where anything was found."""
        if self.found:
            raise StudyError.of(self.origin, self.found)


class _Found(Exception):
    """A fault was noted."""
