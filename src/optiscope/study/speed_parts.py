"""A study of speeds is one ordinary study for each part of its horizon, in a folder each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from optiscope.records import StudyFolder
from optiscope.stats.speed_records import part_folder
from optiscope.study.faults import StudyError
from optiscope.study.resolver import study_from_text
from optiscope.study.runner import Event, run_study
from optiscope.study.study import Study

__all__ = ["part_of", "run_speed_study"]


def part_of(study: Study, part: int) -> Study:
    """The ordinary study of one part of the horizon.

    Its file is the study's, with one line more that says which part.

    Raises:
        StudyError: the study asks nothing of speeds.
    """
    if study.speed is None:
        raise StudyError(f"{study.name} asks nothing of speeds: it has no table [speed]")
    if study.speed.part is not None:
        raise StudyError(f"{study.name} is one part of a study already: leave speed.part out")
    return study_from_text(
        f"{study.source.rstrip()}\npart = {part}\n", f"part {part} of {study.name}"
    )


def run_speed_study(
    study: Study,
    folder: Path | str,
    *,
    on_event: Callable[[int, Event], None] = lambda part, event: None,
    **options: Any,
) -> dict[int, StudyFolder]:
    """Run what is not yet recorded, the whole horizon first; the folders by part.

    Args:
        study: one with a table ``[speed]``.
        folder: of all; each part has a folder in it.
        on_event: told of the part and of every trial that is done.
        options: as for :func:`~optiscope.study.runner.run_study`, whose errors are raised too.
    """
    assert study.speed is not None
    kept = {}
    for part in sorted(study.speed.parts):

        def show(event: Event, part: int = part) -> None:
            on_event(part, event)

        place = part_folder(folder, part)
        kept[part] = run_study(part_of(study, part), place, on_event=show, **options)
    return kept
