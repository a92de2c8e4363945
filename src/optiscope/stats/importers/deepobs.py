"""Runs of DeepOBS from its JSON files: PyTorch beta 1.2.0, and TensorFlow 1.1.

Both layouts hold one run a file, with one value per metric before training and after each epoch.
They differ in the names of the settings, and in what a loss that is no number leads to: version
1.2.0 stops the run and fills the remaining epochs with the values before training.

Losses contain the L2 term where a problem has one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optiscope.records import Measurement, Run, Status
from optiscope.stats.importers.foreign_run import UNKNOWN_STEP, ImportFormatError, foreign_run

__all__ = ["import_deepobs"]

PYTORCH = "DeepOBS 1.2.0 beta"
TENSORFLOW = "DeepOBS 1.1 (TensorFlow)"

_NAMES = {"losses": "loss", "accuracies": "accuracy"}
_FILE_NAME = re.compile(r"__(\d{4}-\d{2}-\d{2})-(\d{2})-(\d{2})-(\d{2})$")

Curves = dict[tuple[str, str], list[float]]


def import_deepobs(path: Path | str) -> list[Run]:
    """Runs in a JSON file of DeepOBS, or in all JSON files below a folder, in order of name.

    Raises:
        ImportFormatError: there is no such file, or one is of neither layout.
    """
    root = Path(path)
    files = sorted(root.rglob("*.json")) if root.is_dir() else [root]
    if not files:
        raise ImportFormatError(f"{root} holds no JSON file: give the folder of DeepOBS's results")
    return [_read(file) for file in files]


def _read(file: Path) -> Run:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ImportFormatError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise ImportFormatError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ImportFormatError(f"{file} is no run of DeepOBS: expected an object of settings")
    try:
        return _run(content, file)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ImportFormatError(f"{file} is no run of DeepOBS: {what}") from None


def _run(content: Mapping[str, Any], file: Path) -> Run:
    if "optimizer_name" in content:
        source, optimizer = PYTORCH, content["optimizer_name"]
        given = content.get("optimizer_hyperparams", content.get("optimizer_params", {}))
        hyperparameters = dict(given)
        training = content.get("training_params") or content.get("analyzable_training_params") or {}
    else:
        source, optimizer, training = TENSORFLOW, content["optimizer"], content
        hyperparameters = {"lr": content["learning_rate"], **content["hyperparams"]}
    if content.get("weight_decay") is not None:
        hyperparameters["problem_weight_decay"] = content["weight_decay"]
    curves = _curves(content)
    kept, status, reason = _ending(curves)
    batches = training.get("train_log_interval")
    return foreign_run(
        source=source,
        problem=str(content["testproblem"]),
        optimizer=str(optimizer),
        hyperparameters=hyperparameters,
        seed=int(content["random_seed"]),
        epochs=int(content["num_epochs"]),
        batch_size=int(content["batch_size"]),
        metrics=[
            Measurement(UNKNOWN_STEP, float(epoch), split, name, values[epoch])
            for epoch in range(kept)
            for (split, name), values in curves.items()
        ],
        status=status,
        reason=f"imported from {source}: {reason}",
        schedule=_schedule(training),
        environment={"source": source, "file": file.name, "train_log_interval": batches},
        started=_started(file),
    )


def _curves(content: Mapping[str, Any]) -> Curves:
    """Per (split, name), the values before training and after each epoch."""
    found: Curves = {}
    for split in ("train", "valid", "test"):
        for plural, name in _NAMES.items():
            values = content.get(f"{split}_{plural}")
            if values:
                found[split, name] = [float(v) for v in values]
    if ("test", "loss") not in found:
        raise ValueError("'test_losses' is missing or empty")
    lengths = {len(values) for values in found.values()}
    if len(lengths) > 1:
        raise ValueError(f"its curves have different lengths, {sorted(lengths)}")
    return found


def _ending(curves: Curves) -> tuple[int, Status, str]:
    """How many measurements are genuine, and how the run ended."""
    total = len(next(iter(curves.values())))
    kept = total
    # No genuine epoch repeats every value before training to the last bit.
    while kept > 1 and all(values[kept - 1] == values[0] for values in curves.values()):
        kept -= 1
    if kept < total:
        filled = total - kept
        return kept, Status.DIVERGED, f"the loss was no number, {filled} epochs filled up"
    losses = [values for (_, name), values in curves.items() if name == "loss"]
    bad = [e for values in losses for e, v in enumerate(values) if not math.isfinite(v)]
    if bad:
        return total, Status.DIVERGED, f"the loss was no number after epoch {min(bad)}"
    return total, Status.FINISHED, f"finished {total - 1} epochs"


def _schedule(training: Mapping[str, Any]) -> dict[str, Any] | None:
    epochs, factors = training.get("lr_sched_epochs"), training.get("lr_sched_factors")
    if not epochs or not factors:
        return None
    return {"name": "steps", "epochs": list(epochs), "factors": list(factors)}


def _started(file: Path) -> str:
    """Time in the file's name, which carries no zone; DeepOBS writes it at the run's start."""
    found = _FILE_NAME.search(file.stem)
    return f"{found[1]}T{found[2]}:{found[3]}:{found[4]}" if found else ""
