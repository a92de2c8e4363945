"""The terminal, to which words of others (labels, paths, errors) go as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from optiscope.errors import ExitCode

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TextColumn

__all__ = ["leave_stopped", "terminal", "words"]


def terminal(*, stderr: bool = False) -> Console:
    """Console on which text in square brackets is text, not markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def words(text: str) -> TextColumn:
    """Column of a progress bar on which text in square brackets is text, not markup."""
    from rich.progress import TextColumn

    return TextColumn(text, markup=False)


def leave_stopped(console: Console, folder: Path) -> NoReturn:
    """End a command that Ctrl-C stopped, with the one line that says how to go on."""
    console.print(
        f"stopped; what is recorded stays in {folder}: run the same command again to continue"
    )
    click.get_current_context().exit(ExitCode.INTERRUPTED)
