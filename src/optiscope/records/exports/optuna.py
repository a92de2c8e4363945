"""The tunings of a study as Optuna studies in a storage, for Optuna's dashboard."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optiscope.records.exports.plain import flat
from optiscope.records.exports.tracker import ExportError
from optiscope.records.run import Run, higher_is_better

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from optiscope.records.study_folder import Entry, StudyFolder

__all__ = ["export_tunings", "storage_at"]


def storage_at(where: Path | str) -> BaseStorage:
    """A storage: an address (``sqlite:///tuning.db``), a ``.db`` file, else a journal file."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    text = str(where)
    if "://" in text:
        return RDBStorage(text)
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    if Path(where).suffix in (".db", ".sqlite", ".sqlite3"):
        return RDBStorage(f"sqlite:///{Path(where).resolve()}")
    return JournalStorage(JournalFileBackend(text))


def export_tunings(folder: StudyFolder, where: Path | str) -> list[str]:
    """Write one Optuna study for each tuning, ``<study>: <problem>, <algorithm>``; their names.

    A trial's value is the mean over the tuning's seeds of the figure that the study selects by; it
    has failed if a run did not reach its end. Values at earlier epochs are its intermediate values.

    Raises:
        ExportError: the storage cannot be written or holds a study of that name already.
        StoreError: the folder holds no study, or cannot be read.
    """
    import optuna

    declaration = folder.declaration()
    metric = str(declaration["tuning"]["select"])
    spaces = {a["label"]: a.get("space", {}) for a in declaration["algorithms"]}
    points: dict[tuple[str, str], dict[int, list[Entry]]] = {}
    for entry in folder.ledger():
        if entry.role == "tuning":
            trials = points.setdefault((entry.problem, entry.algorithm), {})
            trials.setdefault(entry.index, []).append(entry)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = []
    try:
        storage = storage_at(where)
        for (problem, algorithm), trials in points.items():
            name = f"{declaration['name']}: {problem}, {algorithm}"
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize" if higher_is_better(metric) else "minimize",
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([metric])
            for _, entries in sorted(trials.items()):
                study.add_trial(_trial(folder, entries, metric, spaces.get(algorithm, {})))
            names.append(name)
    except optuna.exceptions.DuplicatedStudyError as error:
        raise ExportError(
            f"{where} holds this study already ({error}): give another file"
        ) from None
    except (OSError, optuna.exceptions.StorageInternalError) as error:
        raise ExportError(f"cannot write to {where}: {error}") from error
    return names


def _trial(
    folder: StudyFolder, entries: list[Entry], metric: str, space: Mapping[str, Any]
) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    read = [folder.store.read(entry.trial_hash) for entry in entries]
    runs = [run for run in read if isinstance(run, Run)]
    values = [
        run.final.get(metric) if run.status.complete and not run.pruned else None for run in runs
    ]
    known = [v for v in values if v is not None and math.isfinite(v)]
    whole = len(known) == len(entries)
    pruned = any(run.pruned for run in runs)
    curves: dict[int, list[float]] = {}
    split, _, name = metric.partition("_")
    for run in runs:
        for m in run.metrics:
            if (m.split, m.name) == (split, name) and math.isfinite(m.value):
                curves.setdefault(m.step, []).append(m.value)
    parameters = {k: _plain(v) for k, v in entries[0].hyperparameters.items() if k in space}
    state = TrialState.COMPLETE if whole else TrialState.PRUNED if pruned else TrialState.FAIL
    fixed = {k: v for k, v in entries[0].hyperparameters.items() if k not in space}
    return create_trial(
        state=state,
        value=sum(known) / len(known) if whole else None,
        params=parameters,
        distributions={k: _distribution(space[k], parameters[k]) for k in parameters},
        user_attrs={
            "seeds": [entry.seed for entry in entries],
            "trial_hashes": [entry.trial_hash for entry in entries],
            "statuses": [str(run.status) for run in runs],
            **flat(fixed, "fixed."),
        },
        intermediate_values={s: sum(v) / len(v) for s, v in curves.items() if len(v) == len(runs)},
    )


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _distribution(dimension: Mapping[str, Any], value: Any) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "choice" in dimension:
        choices = [_plain(v) for v in dimension["choice"]]
        return CategoricalDistribution(choices if value in choices else [*choices, value])
    low, high, log = dimension["low"], dimension["high"], bool(dimension.get("log"))
    if isinstance(value, int) and not isinstance(value, bool) and dimension.get("integer"):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)
