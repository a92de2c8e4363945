"""An experiment that measures trained networks: cells of settings, each recorded once.

Unlike a study, which compares algorithms by their records, it needs the weights: curvature at the
end, lines and paths between ends. Each cell is measured in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from optiscope.atomic_file import write_json_atomically
from optiscope.records.store import StoreError
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.study import Event

__all__ = ["Cell", "Measured", "TalkExperiment", "run_cells"]

Cell = Mapping[str, Any]
"""Settings of one measurement, plain values."""

RECORDS = "cells.json"


@dataclass(frozen=True)
class Measured:
    """A cell with what was measured there."""

    cell: Cell
    result: Mapping[str, Any]


@dataclass(frozen=True)
class TalkExperiment:
    """An experiment of the talk.

    Attributes:
        name: word for the command line.
        title: heading of its page.
        published: what was shown, in words.
        source: where it was published.
        cells: settings of the measurements at each scale, in order.
        measure: ``measure(cell, data_dir)`` -> plain numbers; defined at the top of a module.
        sections: what the page says of the measurements.
        not_run: what a scale leaves out, and why; shown on the page.
    """

    name: str
    title: str
    published: str
    source: str
    cells: Callable[[Scale], Sequence[Cell]]
    measure: Callable[[Cell, Path | None], Mapping[str, Any]]
    sections: Callable[[Sequence[Measured]], tuple[Section, ...]]
    not_run: Mapping[str, str] = field(default_factory=dict)


def run_cells(
    experiment: TalkExperiment,
    scale: Scale,
    folder: Path,
    *,
    workers: int | None,
    data_dir: Path | None,
    on_event: Callable[[str, Event], None],
) -> list[Measured]:
    """Measure the cells that ``folder`` does not yet record; all of them, in order.

    Raises:
        StoreError: the records cannot be read.
        DataError: a data set is missing.
    """
    path = folder / RECORDS
    cells = list(experiment.cells(scale))
    results = _read(path)
    missing = [cell for cell in cells if _key(cell) not in results]
    done = len(cells) - len(missing)

    def keep(cell: Cell, result: Mapping[str, Any]) -> None:
        nonlocal done
        results[_key(cell)] = result
        rows = [{"cell": dict(c), "result": results[_key(c)]} for c in cells if _key(c) in results]
        write_json_atomically(path, rows)
        done += 1
        on_event(experiment.name, Event(done, len(cells), ""))

    count = min(workers or multiprocessing.cpu_count(), max(1, len(missing)))
    if count == 1:
        for cell in missing:
            keep(cell, experiment.measure(cell, data_dir))
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(count, mp_context=context, initializer=_one_thread) as pool:
            futures = {pool.submit(experiment.measure, c, data_dir): c for c in missing}
            try:
                for future in as_completed(futures):
                    keep(futures[future], future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [Measured(cell, results[_key(cell)]) for cell in cells]


def _one_thread() -> None:
    torch.set_num_threads(1)


def _key(cell: Cell) -> str:
    return json.dumps(cell, sort_keys=True)


def _read(path: Path) -> dict[str, Mapping[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        return {_key(row["cell"]): row["result"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read ({type(error).__name__}): remove it, or choose another folder"
        ) from None
