"""A suite of faulty training scripts, and of sound ones, that scores any tool for finding faults.

An adapter is a function ``attach(model, optimizer, criterion, scheduler=...)`` that returns an
object with ``findings``; each finding has ``rule``, ``sentence``, ``severity`` and ``step``. It is
called once for each pair of a model and an optimizer, where a user would put the tool's line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optiscope import lazy

if TYPE_CHECKING:
    from optiscope.testing.bugs.clean import clean_scripts as clean_scripts
    from optiscope.testing.bugs.kind import Kind as Kind
    from optiscope.testing.bugs.score import Score as Score
    from optiscope.testing.bugs.score import score_tool as score_tool
    from optiscope.testing.bugs.script import Script as Script

_public_name, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "clean": ("clean_scripts",),
        "kind": ("Kind",),
        "score": ("Score", "score_tool"),
        "script": ("Script",),
    },
)


def __getattr__(name: str) -> Any:
    return _public_name(name)
