"""Studies: declared in one TOML file, validated, tuned, run, resumed."""

from optiscope.study.declaration import StudyError, shipped_studies
from optiscope.study.runner import Event, run_study
from optiscope.study.study import Algorithm, Study, load_study

__all__ = [
    "Algorithm",
    "Event",
    "Study",
    "StudyError",
    "load_study",
    "run_study",
    "shipped_studies",
]
