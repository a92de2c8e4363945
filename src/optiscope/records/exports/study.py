"""A study folder in a tracking program: one run a record, with its settings and curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optiscope.records.exports.tracker import open_tracker
from optiscope.records.run import Run

if TYPE_CHECKING:
    from optiscope.records.study_folder import Entry, StudyFolder

__all__ = ["Planned", "export_study", "runs_of"]


@dataclass(frozen=True)
class Planned:
    """A planned trial of a study: ``export`` writes its record, where there is one."""

    study: str
    folder: StudyFolder
    entry: Entry

    def export(self, to: str, where: Path | str) -> bool:
        """Export the record to a tracking program; False where there is none to read.

        Raises:
            ExportError: unknown program, library not installed, or a place that cannot be written.
        """
        run = self.folder.store.read(self.entry.trial_hash)
        if not isinstance(run, Run):
            return False
        _export(self.study, self.entry, run, to, where)
        return True


def runs_of(folder: StudyFolder) -> list[Planned]:
    """Planned trials in order of the ledger; raises StoreError where there is no study."""
    study = str(folder.declaration()["name"])
    return [Planned(study, folder, entry) for entry in folder.ledger()]


def export_study(folder: StudyFolder, to: str, where: Path | str) -> int:
    """Export every record of a study that can be read; returns how many.

    Args:
        folder: the study.
        to: ``tensorboard``, ``wandb`` or ``mlflow``.
        where: see :func:`optiscope.records.exports.tracker.open_tracker`.

    Raises:
        ExportError: unknown program, library not installed, or a place that cannot be written.
        StoreError: the folder holds no study, or cannot be read.
    """
    return sum(planned.export(to, where) for planned in runs_of(folder))


def _export(study: str, entry: Entry, run: Run, to: str, where: Path | str) -> None:
    part = "" if entry.index < 0 else f" #{entry.index}"
    name = f"{entry.problem} {entry.algorithm}{part} seed {entry.seed}"
    settings = {
        "problem": entry.problem,
        "algorithm": entry.algorithm,
        "role": entry.role,
        "index": entry.index,
        "seed": entry.seed,
        "optimizer": run.trial.optimizer,
        "epochs": run.trial.epochs,
        "batch_size": run.trial.batch_size,
        "device": run.trial.device,
        "trial_hash": entry.trial_hash,
        "hyperparameters": dict(entry.hyperparameters),
    }
    tracker = open_tracker(to, where, name=name, group=study, settings=settings)
    rows: dict[int, dict[str, float]] = {}
    for m in run.metrics:
        rows.setdefault(m.step, {"epoch": m.epoch})[f"{m.split}/{m.name}"] = m.value
    for step in sorted(rows):
        tracker.log(step, rows[step])
    if run.reason:
        tracker.note("reason", run.reason)
    final = {f"final/{name}": value for name, value in run.final.items()}
    best = {f"best/{name}": value for name, value in run.best.items()}
    seconds = {"training_seconds": run.training_seconds.wall, "steps": float(run.steps)}
    tracker.finish({**final, **best, **seconds}, str(run.status))
