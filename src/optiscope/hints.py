"""Suggestions for a misspelled name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]

CUTOFF = 0.5  # similarity in [0, 1] from which a name is worth suggesting
LONGEST = 200  # characters: comparing longer words costs time and suggests nothing


def nearest(word: object, known: Iterable[str], count: int = 1) -> list[str]:
    """Up to ``count`` of ``known`` that resemble ``word``, best first; case is ignored."""
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.casefold(), name)
    text = str(word).casefold()
    if len(text) > LONGEST:
        return []
    matches = difflib.get_close_matches(text, folded, n=count, cutoff=CUTOFF)
    return [folded[match] for match in matches]


def did_you_mean(
    word: object, known: Iterable[str], *, otherwise: str | None = None, count: int = 1
) -> str:
    """Hint that ends an error message: the nearest names, or what to do where none is near.

    Args:
        word: what the user wrote.
        known: names that would have been understood.
        otherwise: text where no name is near; None lists all names.
        count: how many names to suggest at most.
    """
    names = list(known)
    near = nearest(word, names, count)
    if near:
        return f"did you mean {' or '.join(repr(name) for name in near)}?"
    return f"known: {', '.join(names)}" if otherwise is None else otherwise
