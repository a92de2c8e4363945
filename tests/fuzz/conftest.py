"""The command line in this process, for thousands of calls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from optiscope.cli import main


class Outcome(NamedTuple):
    """Exit status and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def optiscope(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """``optiscope("status", folder)``; whatever is not an exit with a status is an escape."""

    def call(*arguments: object) -> Outcome:
        recursion = sys.getrecursionlimit()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        assert isinstance(left.value.code, int)
        assert sys.getrecursionlimit() == recursion
        return Outcome(left.value.code, *capsys.readouterr())

    return call
