"""Studies: declared in one TOML file, validated, tuned, run, resumed.

Names are imported when first used, so that a worker, which only trains, starts without what only
planning needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optiscope import lazy

if TYPE_CHECKING:
    from optiscope.study.declaration import StudyError as StudyError
    from optiscope.study.declaration import shipped_studies as shipped_studies
    from optiscope.study.resolver import load_study as load_study
    from optiscope.study.runner import Event as Event
    from optiscope.study.runner import run_study as run_study
    from optiscope.study.study import Algorithm as Algorithm
    from optiscope.study.study import Study as Study

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "declaration": (
            "StudyError",
            "shipped_studies",
        ),
        "resolver": ("load_study",),
        "runner": (
            "Event",
            "run_study",
        ),
        "study": (
            "Algorithm",
            "Study",
        ),
    },
)
