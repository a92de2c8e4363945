"""Studies: declared in one TOML file, validated, tuned, run, resumed.

Names are imported when first used, so that a worker, which only trains, starts without what only
planning needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optiscope.study.declaration import StudyError, shipped_studies
    from optiscope.study.resolver import load_study
    from optiscope.study.runner import Event, run_study
    from optiscope.study.study import Algorithm, Study

_HOMES = {
    "Algorithm": "study",
    "Event": "runner",
    "Study": "study",
    "StudyError": "declaration",
    "load_study": "resolver",
    "run_study": "runner",
    "shipped_studies": "declaration",
}

__all__ = [
    "Algorithm",
    "Event",
    "Study",
    "StudyError",
    "load_study",
    "run_study",
    "shipped_studies",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"optiscope.study.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
