"""Is this optimizer really better than that one, and why?

The names below are imported when first used, so that ``import optiscope`` is instant.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optiscope.optim import (
        AdaptiveSGD,
        Lark,
        OnlyAdaptiveSGD,
        PreconditionedSGD,
        PreconditionedTunedMomentum,
        PreconditionedTunedSGD,
        Preconditioner,
    )
    from optiscope.problems import Problem
    from optiscope.records import Run, StudyFolder, Trial
    from optiscope.report import write_report
    from optiscope.study import Study, load_study, run_study
    from optiscope.study.single import run

_HOMES = {
    "AdaptiveSGD": "optiscope.optim",
    "Lark": "optiscope.optim",
    "OnlyAdaptiveSGD": "optiscope.optim",
    "PreconditionedSGD": "optiscope.optim",
    "PreconditionedTunedMomentum": "optiscope.optim",
    "PreconditionedTunedSGD": "optiscope.optim",
    "Preconditioner": "optiscope.optim",
    "Problem": "optiscope.problems",
    "Run": "optiscope.records",
    "Study": "optiscope.study",
    "StudyFolder": "optiscope.records",
    "Trial": "optiscope.records",
    "load_study": "optiscope.study",
    "run": "optiscope.study.single",
    "run_study": "optiscope.study",
    "write_report": "optiscope.report",
}

__all__ = [
    "AdaptiveSGD",
    "Lark",
    "OnlyAdaptiveSGD",
    "PreconditionedSGD",
    "PreconditionedTunedMomentum",
    "PreconditionedTunedSGD",
    "Preconditioner",
    "Problem",
    "Run",
    "Study",
    "StudyFolder",
    "Trial",
    "load_study",
    "run",
    "run_study",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Public names, and the version."""
    if name == "__version__":
        return metadata.version("optiscope")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'optiscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
