"""Records as pandas data frames, for whatever else is to be done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optiscope.records.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from optiscope.records.study_folder import StudyFolder

__all__ = ["run_frame", "study_frame"]

COLUMNS = (
    "problem", "algorithm", "role", "index", "seed", "status", "reason", "steps",
    "training_seconds", "trial_hash",
)  # fmt: skip


def run_frame(run: Run) -> pd.DataFrame:
    """One row per measured epoch and step, one column per ``split_name``.

    A metric that was not measured there is NaN. A run that was read without its curves has no rows.
    """
    import pandas as pd

    rows: dict[tuple[float, int], dict[str, float]] = {}
    for m in run.metrics:
        rows.setdefault((m.epoch, m.step), {})[f"{m.split}_{m.name}"] = m.value
    values = [{"epoch": e, "step": s, **row} for (e, s), row in sorted(rows.items())]
    return pd.DataFrame(values, columns=None if values else ["epoch", "step"])


def study_frame(folder: StudyFolder) -> pd.DataFrame:
    """One row per planned trial, in order of the ledger.

    Columns: ``problem``, ``algorithm``, ``role`` (tuning or reporting), ``index`` in the tuning,
    ``seed``, ``status`` (``missing`` without a record, ``damaged`` with one that cannot be read),
    ``reason``, ``steps``, ``training_seconds`` (wall), ``trial_hash``, hyperparameters by their
    names with ``hp_`` before, and ``final_<split>_<name>`` and ``best_<split>_<name>``.

    Raises:
        StoreError: the folder holds no study, or cannot be read.
    """
    import pandas as pd

    folder.declaration()
    rows: list[dict[str, Any]] = []
    for entry in folder.ledger():
        found = folder.store.read(entry.trial_hash, metrics=False)
        row: dict[str, Any] = {
            "problem": entry.problem,
            "algorithm": entry.algorithm,
            "role": entry.role,
            "index": entry.index,
            "seed": entry.seed,
            "trial_hash": entry.trial_hash,
        }
        row |= {f"hp_{name}": value for name, value in entry.hyperparameters.items()}
        if isinstance(found, Run):
            row |= {"status": str(found.status), "reason": found.reason, "steps": found.steps}
            row["training_seconds"] = found.training_seconds.wall
            row |= {f"final_{name}": value for name, value in found.final.items()}
            row |= {f"best_{name}": value for name, value in found.best.items()}
        else:
            row["status"] = "missing" if found is None else "damaged"
            row["reason"] = "" if found is None else found.reason
        rows.append(row)
    more = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    return pd.DataFrame(rows, columns=[*COLUMNS, *sorted(more, key=_group)])


def _group(column: str) -> tuple[int, str]:
    """Hyperparameters first, then final and best values."""
    return ("hp_", "final_", "best_").index(column[: column.index("_") + 1]), column
