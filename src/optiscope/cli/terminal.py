"""The terminal, to which words of others (labels, paths, errors) go as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TextColumn

__all__ = ["terminal", "words"]


def terminal(*, stderr: bool = False) -> Console:
    """Console on which text in square brackets is text, not markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def words(text: str) -> TextColumn:
    """Column of a progress bar on which text in square brackets is text, not markup."""
    from rich.progress import TextColumn

    return TextColumn(text, markup=False)
