"""Running an experiment: its studies and times, then its page."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from optiscope.atomic_file import write_atomically, write_json_atomically
from optiscope.errors import OptiscopeError
from optiscope.records.store import StoreError, explain
from optiscope.report.study_report import write_report
from optiscope.reproduction.experiments import Experiment, Scale, TimedProblem, experiment
from optiscope.reproduction.page import render_page
from optiscope.reproduction.sections import TIMED, Section, cost_section, study_section
from optiscope.study import Event, run_study
from optiscope.study.cost import time_optimizers

if TYPE_CHECKING:
    from optiscope.reproduction.talk import TalkExperiment

__all__ = ["Reproduction", "reproduce"]


class Reproduction(NamedTuple):
    """What an experiment came to: its page, and what the page says."""

    page: Path
    sections: tuple[Section, ...]


def reproduce(
    name: str,
    folder: Path | str,
    *,
    scale: Scale = "small",
    workers: int | None = None,
    device: str | None = None,
    data_dir: Path | None = None,
    on_event: Callable[[str, Event], None] = lambda study, event: None,
) -> Reproduction:
    """Run what of an experiment is not yet recorded in ``folder``, and write its page.

    Args:
        name: of the experiment.
        folder: where records and page go; a folder holds one scale.
        scale: ``full`` as published, or ``small``, for two cores.
        workers: trials at a time.
        device: where to train; the studies' own by default.
        data_dir: where the data sets are.
        on_event: told of the study and every trial that is done.

    Raises:
        ValueError: no such experiment.
        StoreError: the folder cannot be written, or holds another scale.
        MissingData: a data set is missing.
    """
    from optiscope.reproduction.talk import TALK, run_cells  # loads torch

    target = Path(folder)
    if name in TALK:
        if device is not None:
            raise OptiscopeError(f"{name} measures on the CPU, got --device {device}: leave it out")
        talk = TALK[name]
        _claim_folder(target, name, scale)
        measured = run_cells(
            talk, scale, target, workers=workers, data_dir=data_dir, on_event=on_event
        )
        return _written(target, talk, scale, talk.sections(measured), talk.not_run.get(scale, ""))
    found = experiment(name)
    _claim_folder(target, name, scale)
    sections: list[Section] = []
    for part in found.parts.get(scale, ()):
        study = part.load()
        if device is not None:
            study = replace(study, device=device)
        kept = run_study(
            study,
            target / part.name,
            workers=workers,
            data_dir=data_dir,
            on_event=functools.partial(on_event, part.name),
        )
        write_report(kept)
        sections.append(study_section(part, kept))
    for timed in found.timed.get(scale, ()):
        path = target / f"{timed.problem}_time.json"
        if not path.exists():
            _time(timed, path, data_dir, on_event)
        sections.append(cost_section(timed, path))
    return _written(target, found, scale, sections)


def _written(
    folder: Path,
    shown: Experiment | TalkExperiment,
    scale: Scale,
    sections: Sequence[Section],
    not_run: str = "",
) -> Reproduction:
    """The page, written."""
    page = folder / "reproduction.html"
    try:
        write_atomically(page, render_page(shown, scale, sections, not_run))
    except OSError as error:
        raise StoreError(explain(error, folder)) from error
    return Reproduction(page, tuple(sections))


def _claim_folder(folder: Path, name: str, scale: Scale) -> None:
    """Keep what the folder is for, and refuse it for anything else."""
    path, ours = folder / "experiment.json", {"experiment": name, "scale": scale}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if kept is None:
            write_json_atomically(path, ours)
    except OSError as error:
        raise StoreError(explain(error, folder)) from error
    except ValueError:
        raise StoreError(f"{path} cannot be read: remove it, or choose another folder") from None
    if kept not in (None, ours):
        raise StoreError(
            f"{folder} holds another experiment or scale: choose another folder for {name} "
            f"at {scale} scale"
        )


def _time(
    timed: TimedProblem,
    path: Path,
    data_dir: Path | None,
    on_event: Callable[[str, Event], None],
) -> None:
    total = timed.repetitions * len(TIMED)
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        on_event(f"timing {timed.problem}", Event(done, total, ""))

    content = time_optimizers(
        timed.problem,
        list(TIMED),
        repetitions=timed.repetitions,
        data_dir=data_dir,
        on_chunk=count,
    )
    write_json_atomically(path, content)
