"""Is this optimizer really better than that one, and why?

The names below are imported when first used, so that ``import optiscope`` is instant.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from optiscope import lazy

if TYPE_CHECKING:
    from optiscope.doctor.check import check as check
    from optiscope.doctor.finding import Finding as Finding
    from optiscope.doctor.watching import Watch as Watch
    from optiscope.doctor.watching import watch as watch
    from optiscope.objective.risk import EmpiricalRisk as EmpiricalRisk
    from optiscope.optim import AdaptiveSGD as AdaptiveSGD
    from optiscope.optim import Lark as Lark
    from optiscope.optim import OnlyAdaptiveSGD as OnlyAdaptiveSGD
    from optiscope.optim import PreconditionedSGD as PreconditionedSGD
    from optiscope.optim import PreconditionedTunedMomentum as PreconditionedTunedMomentum
    from optiscope.optim import PreconditionedTunedSGD as PreconditionedTunedSGD
    from optiscope.optim import Preconditioner as Preconditioner
    from optiscope.problems import Problem as Problem
    from optiscope.records import Run as Run
    from optiscope.records import StudyFolder as StudyFolder
    from optiscope.records import Trial as Trial
    from optiscope.report import write_report as write_report
    from optiscope.study import Study as Study
    from optiscope.study import load_study as load_study
    from optiscope.study import run_study as run_study
    from optiscope.study.single import run as run

_public_name, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "optiscope.doctor.finding": ("Finding",),
        "optiscope.doctor.watching": ("Watch", "watch"),
        "optiscope.objective.risk": ("EmpiricalRisk",),
        "optiscope.doctor.check": ("check",),
        "optiscope.optim": (
            "AdaptiveSGD",
            "Lark",
            "OnlyAdaptiveSGD",
            "PreconditionedSGD",
            "PreconditionedTunedMomentum",
            "PreconditionedTunedSGD",
            "Preconditioner",
        ),
        "optiscope.problems": ("Problem",),
        "optiscope.records": (
            "Run",
            "StudyFolder",
            "Trial",
        ),
        "optiscope.report": ("write_report",),
        "optiscope.study": (
            "Study",
            "load_study",
            "run_study",
        ),
        "optiscope.study.single": ("run",),
    },
)


def __getattr__(name: str) -> Any:
    """Public names, and the version."""
    if name == "__version__":
        return metadata.version("optiscope")
    return _public_name(name)
