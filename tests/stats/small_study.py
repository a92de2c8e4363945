"""A study on disk whose final values are given, for tests of what it supports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optiscope.records import (
    Entry,
    Measurement,
    Run,
    Seconds,
    Status,
    StudyFolder,
    Trial,
    summarise,
)

PROBLEM = "fmnist_2c2d"
SEEDS = (100, 101, 102, 103, 104)
ADAM = (0.915, 0.911, 0.917, 0.909, 0.914)
SGD = (0.901, 0.899, 0.905, 0.893, 0.902)
TWO = {"Adam": ADAM, "SGD": SGD}
SPACE = {"lr": {"low": 1e-5, "high": 1e-1, "log": True}}


def algorithm(label: str, **changes: Any) -> dict[str, Any]:
    """A declared algorithm with budget 4 over a log range of learning rates."""
    return {
        "label": label,
        "optimizer": label.lower(),
        "fixed": {},
        "space": SPACE,
        "sampler": "grid",
        "budget": 4,
        "pruner": None,
        "schedule": None,
        "clip": None,
        "early_stopping": None,
        "colour": None,
    } | changes


def run(
    label: str,
    problem: str,
    seed: int,
    hyperparameters: Mapping[str, Any],
    curve: Sequence[float],
    *,
    metric: str = "accuracy",
    status: Status = Status.FINISHED,
    imported: str | None = None,
    **trial: Any,
) -> Run:
    """A run whose valid and test metric follow ``curve``, one value per epoch."""
    metrics = [
        Measurement(10 * epoch, float(epoch), split, name, value)
        for epoch, height in enumerate(curve)
        for split in ("valid", "test")
        for name, value in {"loss": 1 - height, metric: height}.items()
    ]
    final, best = summarise(metrics)
    fields = {"problem_version": 1, "epochs": 100, "batch_size": 128} | trial
    return Run(
        trial=Trial(
            problem=problem,
            optimizer=label.lower(),
            hyperparameters=dict(hyperparameters),
            seed=seed,
            **fields,
        ),
        status=status,
        reason=f"invented: {status}",
        steps=10 * (len(curve) - 1),
        seconds={"forward_backward": Seconds(1.0, 1.0)},
        counts={"gradient_evaluations": 10 * (len(curve) - 1), "hessian_products": 0},
        peak_memory_bytes=None,
        environment={"python": "3.12"},
        started="2026-01-01T00:00:00+00:00",
        metrics=metrics,
        final=final,
        best=best,
        imported=imported,
    )


def study(
    path: Path,
    values: Mapping[str, Sequence[float]],
    *,
    algorithms: Sequence[Mapping[str, Any]] | None = None,
    tuning_values: Mapping[str, Sequence[float]] | None = None,
    problems: Sequence[str] = (PROBLEM,),
    epochs: int = 100,
    seeds: Sequence[int] = SEEDS,
    run_changes: Mapping[str, Mapping[str, Any]] | None = None,
    tuning_changes: Mapping[str, Mapping[str, Any]] | None = None,
    **declared: Any,
) -> StudyFolder:
    """A study whose reporting runs end at ``values[label]``, one per seed; NaN for diverged.

    The tuning tries learning rates 1e-5, 1e-4, ... per algorithm, whose valid losses are
    ``1 - tuning_values[label]``; by default the third, 1e-3, is best, and all report with it.
    ``run_changes`` and ``tuning_changes`` change fields of the
    trials or runs of a label.
    """
    folder = StudyFolder(path)
    algorithms = algorithms or [algorithm(label) for label in values]
    metric = dict(declared.get("metric", dict.fromkeys(problems, "accuracy")))
    entries, runs = [], []
    for problem in problems:
        for entry in algorithms:
            label = str(entry["label"])
            tried = (tuning_values or {}).get(label, (0.5, 0.7, 0.8, 0.6)) if entry["space"] else ()
            for index, value in enumerate(tried):
                rate = {"lr": float(f"1e{index - 5}")}
                changes = dict((tuning_changes or {}).get(label, {}))
                made = run(
                    label,
                    problem,
                    changes.pop("seed", 0),
                    rate,
                    [0.1, value],
                    status=Status.DIVERGED if math.isnan(value) else Status.FINISHED,
                    **{"epochs": epochs} | changes,
                )
                runs.append(made)
                entries.append(planned(made, label, "tuning", index))
            for seed, value in zip(seeds, values[label], strict=False):
                made = run(
                    label,
                    problem,
                    seed,
                    {"lr": 1e-3},
                    [0.1, value],
                    metric=metric[problem],
                    status=Status.DIVERGED if math.isnan(value) else Status.FINISHED,
                    **{"epochs": epochs} | dict((run_changes or {}).get(label, {})),
                )
                runs.append(made)
                entries.append(planned(made, label, "reporting", -1))
    for made in runs:
        folder.store.write(made)
    folder.write_declaration(
        {
            "schema": 1,
            "name": "small",
            "question": "Which is better?",
            "problems": list(problems),
            "epochs": dict.fromkeys(problems, epochs),
            "batch_sizes": dict.fromkeys(problems, 128),
            "reference": str(algorithms[0]["label"]),
            "metric": metric,
            "algorithms": [dict(entry) for entry in algorithms],
            "tuning": {"seeds": [0], "select": "valid_loss"},
            "seeds": list(seeds),
            "equivalence_margin": None,
            "level": 0.05,
            "assumption": "normal",  # so that five seeds decide
            "version": "0.1.0",
        }
        | declared
    )
    folder.write_ledger(sorted(entries, key=lambda e: e.role != "tuning"))
    return folder


def planned(made: Run, label: str, role: str, index: int) -> Entry:
    """The ledger's entry of a run."""
    return Entry(
        made.trial.hash,
        label,
        made.trial.problem,
        role,
        index,
        dict(made.trial.hyperparameters),
        made.trial.seed,
    )
