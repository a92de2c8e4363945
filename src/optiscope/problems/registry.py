"""Problems by name or by import path.

torch is imported only when a problem is made, so that listing stays fast.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from optiscope.errors import OptiscopeError, is_ctrl_c, message_of, shorten
from optiscope.hints import did_you_mean
from optiscope.import_path import load
from optiscope.problems.catalogue import DEVELOPMENT, ENTRIES, Entry

if TYPE_CHECKING:
    from optiscope.problems.problem import Problem

__all__ = ["UnknownProblemError", "entries", "get", "names"]


class UnknownProblemError(OptiscopeError, ValueError):
    """A name or import path that leads to no problem; the message is one line."""


def entries(*, development: bool = False) -> tuple[Entry, ...]:
    """What is known of each shipped problem without importing torch, in the catalogue's order.

    Args:
        development: the problems to develop optimizers on instead of those to judge them by.
    """
    return DEVELOPMENT if development else ENTRIES


def names() -> list[str]:
    """Names of the shipped problems, in the catalogue's order."""
    return [entry.name for entry in ENTRIES]


def get(name: str) -> Problem:
    """The problem of that name, or at that import path.

    Args:
        name: one of `names`, or ``my_package.my_module:my_problem``, where ``my_problem`` is a
            `Problem` or a function without arguments that returns one. ``@5000`` after either
            leaves that many training samples, the same ones in every trial.

    Raises:
        UnknownProblemError: nothing of that name; the message names the nearest ones.
    """
    whole, at, count = name.rpartition("@")
    if at and whole:
        if not count.isascii() or not count.isdigit() or not 0 < len(count) < 16 or int(count) < 1:
            raise UnknownProblemError(
                f"expected a number of training samples after @ in {shorten(name)}, got "
                f"{shorten(count)}"
            )
        from optiscope.problems.subset import with_fewer_samples

        return with_fewer_samples(get(whole), int(count))
    if ":" in name:
        return _imported(name)
    for entry in (*ENTRIES, *DEVELOPMENT):
        if entry.name == name:
            return _imported(f"optiscope.problems.{entry.family}:{name}")
    hint = did_you_mean(name, names(), otherwise="see `optiscope list problems`", count=3)
    raise UnknownProblemError(
        f"expected a problem's name or my_package.my_module:my_problem, got {name!r}: {hint}"
    )


def _imported(path: str) -> Problem:
    """The problem at ``module:attribute``."""
    from optiscope.problems.problem import Problem

    found = load(path, "a problem", "my_package.my_module:my_problem", UnknownProblemError)
    if callable(found) and not isinstance(found, Problem):
        try:
            found = found()
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            what = message_of(error)
            raise UnknownProblemError(
                f"expected a function that takes no arguments and returns a problem at {path!r}, "
                f"got {type(error).__name__} from it: {what}"
            ) from error
    if not isinstance(found, Problem):
        raise UnknownProblemError(
            f"expected {path!r} to be an optiscope.problems.Problem or a function that returns "
            f"one, got {type(found).__name__}: see docs/problems.md"
        )
    return found if found.name else replace(found, name=path.partition(":")[2])
