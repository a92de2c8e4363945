"""Weights that a command names: a file, or the folder of a run that kept some."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optiscope.errors import OptiscopeError, shorten
from optiscope.records.kept_weights import FOLDER, kept_weights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SourceError", "Weights", "all_weights_of", "problem_of", "weights_at"]


class SourceError(OptiscopeError, ValueError):
    """What was named is no problem, no run with weights and no file of weights."""


@dataclass(frozen=True)
class Weights:
    """A state dict and where it is from.

    Attributes:
        state: tensors by name.
        problem: of the run they are from; None for a file of no run.
        label: word for figures.
    """

    state: dict[str, Tensor]
    problem: str | None
    label: str


def weights_at(path: Path, epoch: int | None = None) -> Weights:
    """Those of a file, or of a run at an epoch; None: the last that was kept.

    Raises:
        SourceError: a folder without a run, or a run without weights of that epoch.
        WeightFileError: the file holds none.
    """
    from optiscope.objective.weight_files import read_weights

    if not path.is_dir():
        in_a_run = path.parent.name == FOLDER and (path.parents[1] / "run.json").is_file()
        owner = problem_of(path.parents[1]) if in_a_run else None
        return Weights(read_weights(path), owner, path.stem)
    problem, files = problem_of(path), _files_of(path)
    chosen = max(files) if epoch is None else epoch
    if chosen not in files:
        known = ", ".join(map(str, files))
        raise SourceError(f"expected an epoch whose weights were kept ({known}), got {epoch}")
    return Weights(read_weights(files[chosen]), problem, f"{path.name[:8]}, epoch {chosen}")


def all_weights_of(run: Path) -> list[Weights]:
    """Those that a run kept, in the order of epochs; raises as `weights_at` does."""
    return [weights_at(run, epoch) for epoch in _files_of(run)]


def problem_of(run: Path) -> str:
    """The problem that a run's record names.

    Raises:
        SourceError: there is no record, or it names none.
    """
    record = run / "run.json"
    if not record.is_file():
        raise SourceError(
            f"expected the folder of a run, with run.json, got {shorten(str(run))}: name the "
            "folder of one run"
        )
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["trial"]["problem"])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise SourceError(
            f"expected run.json to name a problem, got {type(error).__name__}: "
            f"{shorten(str(error))}"
        ) from None


def _files_of(run: Path) -> dict[int, Path]:
    files = kept_weights(run)
    if not files:
        raise SourceError(
            f"expected a run that kept its weights, got {shorten(str(run))} without any: train "
            "it with --keep-weights"
        )
    return files
