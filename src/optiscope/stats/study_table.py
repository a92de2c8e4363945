"""The records of a study as tidy tables: one row per planned trial, one per measurement."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import repeat
from typing import Any, Final

import pandas as pd

from optiscope.records import DamagedRecord, Entry, Run, Status, StudyFolder
from optiscope.stats.evidence import Evidence, Part
from optiscope.stats.hardware import hardware, untimed
from optiscope.stats.importers.kept import imported_runs

__all__ = [
    "DAMAGED",
    "MISSING",
    "NO_OUTCOME",
    "PHASES",
    "PRUNED",
    "AlgorithmEntry",
    "StudyTables",
    "read_study",
]

MISSING: Final = "missing"
"""Status of a trial that was planned and has no record yet."""

DAMAGED: Final = "damaged"
"""Status of a trial whose record cannot be trusted."""

PRUNED: Final = "pruned"
"""Status of a tuning trial that the algorithm's pruner stopped: it has no final value."""

NO_OUTCOME: Final = (MISSING, DAMAGED, str(Status.INTERRUPTED))
"""Statuses of trials that came to no outcome and will run again when the study goes on."""

PHASES: Final = ("data", "forward_backward", "optimizer", "instruments", "evaluation")
"""Phases of a run whose seconds are kept, in order of a training step."""

_RUN_COLUMNS: Final = (
    "trial_hash",
    "algorithm",
    "problem",
    "role",
    "index",
    "seed",
    "hyperparameters",
    "status",
    "reason",
    "complete",
    "steps",
    "training_wall",
    "training_cpu",
    "gradient_evaluations",
    "hessian_products",
    "peak_memory_bytes",
    "started",
    "imported",
    "hardware",
    "untimed",
)
_CURVE_COLUMNS: Final = ("algorithm", "problem", "seed", "split", "name", "epoch", "value")


@dataclass(frozen=True)
class AlgorithmEntry:
    """One A(Φ, budget) of a study, as declared.

    Attributes:
        label: its name in the study.
        optimizer: name or import path.
        fixed: hyperparameters that are not tuned.
        space: Φ: per name ``{"low", "high", "log"}`` or ``{"choice": [...]}``; empty when untuned.
        sampler: ``grid``, ``random``, ``qmc``, ``tpe`` or ``none``.
        budget: hyperparameters tried.
        schedule: learning-rate schedule, or None.
        clip: gradient clipping, or None.
        early_stopping: criterion and patience, or None.
        pruner: rule that ends poor trials early, or None.
        autocast: ``bfloat16`` or ``float16``, mixed precision in training, or None.
        compile: True where the model is compiled for training, or None.
        accumulate: parts in which each batch's gradient is computed, or None.
        together: True where trials train in one batch with others, or None.
        colour: ``#rrggbb`` chosen by the user, or None.
        tune: ``none`` where hyperparameters are declared to stay at their defaults, or None.
    """

    label: str
    optimizer: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sampler: str = "none"
    budget: int = 1
    schedule: Mapping[str, Any] | None = None
    clip: Mapping[str, Any] | None = None
    early_stopping: Mapping[str, Any] | None = None
    pruner: Mapping[str, Any] | str | None = None
    colour: str | None = None
    tune: str | None = None
    autocast: str | None = None
    compile: bool | None = None
    accumulate: int | None = None
    together: bool | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AlgorithmEntry:
        """From a resolved declaration, whose further keys say nothing that a report shows."""
        further = {f.name for f in fields(cls)} - {"label", "optimizer"}
        return cls(
            label=values["label"],
            optimizer=values["optimizer"],
            **{name: value for name, value in values.items() if name in further},
        )


@dataclass(frozen=True)
class StudyTables:
    """Everything a report needs, read once.

    Attributes:
        declaration: the resolved declaration.
        algorithms: as declared, in the user's order.
        runs: one row per ledger entry; ``status`` is a run's status, ``pruned``, ``missing`` or
            ``damaged``; ``complete`` says whether it has a final value to compare;
            ``final_<split>_<name>`` and ``best_<split>_<name>`` hold what the run measured,
            ``wall_<phase>`` and ``cpu_<phase>`` seconds; NaN where nothing was measured.
        curves: one row per measurement of a reporting run, in order of measurement.
        evidence: the same runs as claims are made from.
        damaged: records that cannot be trusted.
        environments: distinct environments of the runs with the number of runs in each,
            commonest first.
        published: imported runs kept beside the study, read where curves are.
        findings: entries whose runs were watched, with what was found.
    """

    declaration: Mapping[str, Any]
    algorithms: tuple[AlgorithmEntry, ...]
    runs: pd.DataFrame
    curves: pd.DataFrame
    evidence: Evidence
    damaged: tuple[DamagedRecord, ...]
    environments: tuple[tuple[Mapping[str, Any], int], ...]
    published: tuple[Run, ...] = ()
    findings: tuple[tuple[Entry, tuple[Mapping[str, Any], ...]], ...] = ()

    @property
    def labels(self) -> list[str]:
        """Labels of the algorithms in the user's order."""
        return [algorithm.label for algorithm in self.algorithms]

    @property
    def problems(self) -> list[str]:
        """Names of the problems in the user's order."""
        return list(self.declaration["problems"])

    def algorithm(self, label: str) -> AlgorithmEntry:
        """The algorithm of that label; raises KeyError."""
        for algorithm in self.algorithms:
            if algorithm.label == label:
                return algorithm
        raise KeyError(label)

    def metric(self, problem: str) -> str:
        """The reported metric of a problem on the test split: ``accuracy`` or ``loss``."""
        return str(self.declaration["metric"][problem])

    @cached_property
    def curve_groups(self) -> dict[tuple[str, str, str, str], pd.DataFrame]:
        """Rows of ``curves`` per (problem, algorithm, split, name)."""
        grouped = self.curves.groupby(["problem", "algorithm", "split", "name"], observed=True)
        return {
            (str(problem), str(algorithm), str(split), str(name)): rows
            for (problem, algorithm, split, name), rows in grouped
        }

    def of(self, problem: str, label: str, role: str) -> pd.DataFrame:
        """Rows of ``runs`` of one problem, algorithm and role (``tuning`` or ``reporting``)."""
        return self.runs.iloc[self._positions.get((problem, label, role), [])]

    @cached_property
    def _positions(self) -> dict[tuple[str, str, str], list[int]]:
        found: dict[tuple[str, str, str], list[int]] = {}
        keys = zip(self.runs["problem"], self.runs["algorithm"], self.runs["role"], strict=True)
        for position, key in enumerate(keys):
            found.setdefault(key, []).append(position)
        return found


def read_study(
    folder: StudyFolder,
    *,
    curves: bool = True,
    rename: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> StudyTables:
    """Tables of a study's records; a damaged record becomes a row that says so.

    Args:
        folder: the study.
        curves: also read the measurements of the reporting runs.
        rename: other labels for some algorithms, by declared label; unknown ones are an error.
        progress: called with the number of entries read and their total.

    Raises:
        StoreError: the folder holds no study, or cannot be read.
        ValueError: an unknown label to rename, or two algorithms of one name.
    """
    declaration, ledger = _renamed(folder.declaration(), folder.ledger(), rename or {})
    rows: list[dict[str, Any]] = []
    watched: list[tuple[Entry, tuple[Mapping[str, Any], ...]]] = []
    columns: dict[str, list[Any]] = {name: [] for name in _CURVE_COLUMNS}
    environments: Counter[str] = Counter()
    samples: dict[str, Mapping[str, Any]] = {}
    read: dict[str, Run | DamagedRecord | None] = {}
    drawn = Counter(entry.trial_hash for entry in ledger if curves and entry.role == "reporting")
    for done, entry in enumerate(ledger):
        key = entry.trial_hash
        if key not in read:
            run = read[key] = folder.store.read(key, metrics=key in drawn)
            if isinstance(run, Run):
                shown = {k: v for k, v in run.environment.items() if k != "sessions"}
                where = json.dumps(shown, sort_keys=True)
                environments[where] += 1
                samples.setdefault(where, shown)
        run = read[key]
        rows.append(_row(entry, run))
        if isinstance(run, Run) and (found := folder.store.findings(key)) is not None:
            watched.append((entry, tuple(found)))
        if isinstance(run, Run) and entry.role == "reporting" and curves:
            _add_curves(columns, entry, run)
            drawn[key] -= 1  # two algorithms may share a trial: keep its curve until the last one
            if not drawn[key]:
                read[key] = replace(run, metrics=())
        if progress is not None:
            progress(done + 1, len(ledger))
    return StudyTables(
        declaration=declaration,
        algorithms=tuple(AlgorithmEntry.from_dict(values) for values in declaration["algorithms"]),
        runs=_frame(rows),
        curves=_curve_frame(columns),
        evidence=_evidence(declaration, ledger, read),
        damaged=tuple(r for r in read.values() if isinstance(r, DamagedRecord)),
        environments=tuple((samples[key], count) for key, count in environments.most_common()),
        published=tuple(imported_runs(folder)) if curves else (),
        findings=tuple(watched),
    )


def _renamed(
    declaration: dict[str, Any], ledger: list[Entry], names: Mapping[str, str]
) -> tuple[dict[str, Any], list[Entry]]:
    """Declaration and ledger with other labels, which everything read from them then carries."""
    if not names:
        return declaration, ledger
    declared = [str(algorithm["label"]) for algorithm in declaration["algorithms"]]
    unknown = [label for label in names if label not in declared]
    if unknown:
        raise ValueError(
            f"no algorithm is labelled {unknown[0]!r}: choose from {', '.join(declared)}"
        )
    renamed = [names.get(label, label) for label in declared]
    if len(set(renamed)) < len(renamed):
        raise ValueError(f"two algorithms would share a label: {', '.join(renamed)}")
    algorithms = [
        algorithm | {"label": label}
        for algorithm, label in zip(declaration["algorithms"], renamed, strict=True)
    ]
    reference = names.get(declaration["reference"], declaration["reference"])
    entries = [replace(e, algorithm=names.get(e.algorithm, e.algorithm)) for e in ledger]
    return declaration | {"algorithms": algorithms, "reference": reference}, entries


def _evidence(
    declaration: Mapping[str, Any],
    ledger: Sequence[Entry],
    read: Mapping[str, Run | DamagedRecord | None],
) -> Evidence:
    tuning: dict[tuple[str, str], list[Part]] = {}
    reporting: dict[tuple[str, str], dict[int, Part]] = {}
    for entry in ledger:
        run = read[entry.trial_hash]
        part = Part(entry, run if isinstance(run, Run) else None)
        key = (entry.problem, entry.algorithm)
        if entry.role == "tuning":
            tuning.setdefault(key, []).append(part)
        else:
            reporting.setdefault(key, {})[entry.seed] = part
    return Evidence(declaration, tuning, reporting)


def _row(entry: Entry, run: Run | DamagedRecord | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trial_hash": entry.trial_hash,
        "algorithm": entry.algorithm,
        "problem": entry.problem,
        "role": entry.role,
        "index": entry.index,
        "seed": entry.seed,
        "hyperparameters": dict(entry.hyperparameters),
        "complete": False,
    }
    if run is None:
        return row | {"status": MISSING, "reason": "not run yet"}
    if isinstance(run, DamagedRecord):
        return row | {"status": DAMAGED, "reason": run.reason}
    spent = run.training_seconds
    return (
        row
        | {
            "status": PRUNED if run.pruned else str(run.status),
            "reason": run.reason,
            "complete": run.status.complete and not run.pruned,
            "steps": run.steps,
            "training_wall": spent.wall,
            "training_cpu": spent.cpu,
            "gradient_evaluations": run.counts.get("gradient_evaluations"),
            "hessian_products": run.counts.get("hessian_products"),
            "peak_memory_bytes": run.peak_memory_bytes,
            "started": run.started,
            "imported": run.imported,
            "hardware": hardware(run.environment),
            "untimed": untimed(run.environment),
        }
        | {f"wall_{phase}": seconds.wall for phase, seconds in run.seconds.items()}
        | {f"cpu_{phase}": seconds.cpu for phase, seconds in run.seconds.items()}
        | {f"final_{key}": value for key, value in run.final.items()}
        | {f"best_{key}": value for key, value in run.best.items()}
    )


def _add_curves(columns: dict[str, list[Any]], entry: Entry, run: Run) -> None:
    for name in ("algorithm", "problem", "seed"):
        columns[name].extend(repeat(getattr(entry, name), len(run.metrics)))
    for row in run.metrics:
        columns["epoch"].append(row.epoch)
        columns["split"].append(row.split)
        columns["name"].append(row.name)
        columns["value"].append(row.value)


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    missing = [name for name in _RUN_COLUMNS if name not in frame.columns]
    for name in missing:
        frame[name] = pd.Series([None] * len(frame), dtype=object)
    return frame


def _curve_frame(columns: dict[str, list[Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    for name in ("algorithm", "problem", "split", "name"):
        frame[name] = frame[name].astype("category")
    return frame.astype({"seed": "int64", "epoch": "float64", "value": "float64"})
