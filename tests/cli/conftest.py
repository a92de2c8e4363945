"""The command line, called in this process as the console script calls it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from optiscope import executors
from optiscope.cli import main
from study.small_studies import Inline


class Outcome(NamedTuple):
    """Exit status and what was printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """``optiscope bench`` trains in this process: no worker has to import torch first."""
    monkeypatch.setattr(executors, "process_pool", Inline)


@pytest.fixture
def console() -> list[str]:
    """The console script as a command, for a process of its own."""
    return [sys.executable, "-c", "from optiscope.cli import main; main()"]


@pytest.fixture
def optiscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """``optiscope("run", "digits_mlp", "sgd")``; a traceback fails the test that caused it."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        code = left.value.code
        assert isinstance(code, int)
        return Outcome(code, *capsys.readouterr())

    return call
