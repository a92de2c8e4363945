"""A kind of fault: how to make it, how to mend it, and which words name its cause."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optiscope.testing.bugs.script import Script, base_named

__all__ = ["Change", "Kind", "registry"]

Change = Callable[[Script], None]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    ``words`` is a regular expression that is looked for in a finding's rule and sentence: it names
    the cause itself; a symptom is no hit. ``bug`` changes a sound script into a faulty one,
    ``mend`` into a sound one that resembles it. ``bases`` are the scripts it is tried on.
    """

    name: str
    words: str
    bases: tuple[str, ...]
    bug: Change
    mend: Change

    def script(self, base: str, seed: int, *, mended: bool = False) -> Script:
        """The faulty script, or its mended twin."""
        script = base_named(base, seed)
        (self.mend if mended else self.bug)(script)
        return script

    def is_named_by(self, finding: Any) -> bool:
        """Whether a finding names this cause."""
        rule = str(getattr(finding, "rule", ""))
        text = f"{rule} {rule.replace('_', ' ')} {getattr(finding, 'sentence', '')}"
        return re.search(self.words, text, re.IGNORECASE) is not None


def same(script: Script) -> None:
    """The sound script as it is."""


def registry() -> tuple[dict[str, Kind], Callable[..., Callable[[Change], Change]]]:
    """A dictionary of kinds, and the decorator that puts a fault into it.

    The decorated function is the fault; its name is the kind's.
    """
    kinds: dict[str, Kind] = {}

    def kind(words: str, *bases: str, mend: Change = same) -> Callable[[Change], Change]:
        def register(bug: Change) -> Change:
            name = bug.__name__
            kinds[name] = Kind(name, words, bases, bug, mend)
            return bug

        return register

    return kinds, kind
