"""Runs of DeepOBS from its JSON files: PyTorch beta 1.2.0, and TensorFlow 1.1.

Both layouts hold one run a file, with one value per metric before training and after each epoch.
They differ in the names of the settings, and in what a loss that is no number leads to: version
1.2.0 stops the run and fills the remaining epochs with the values before training. ``null`` is read
as a value that was no number, a curve of nothing but ``null`` as one that was not measured.

Losses contain the L2 term where a problem has one.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optiscope.errors import shorten
from optiscope.records import Measurement, Run, Status
from optiscope.stats.importers.foreign_run import (
    UNKNOWN_STEP,
    ImportFormatError,
    by_value,
    foreign_run,
    read_number,
    whole_number,
)

__all__ = ["import_deepobs"]

PYTORCH = "DeepOBS 1.2.0 beta"
TENSORFLOW = "DeepOBS 1.1 (TensorFlow)"

_NAMES = {"losses": "loss", "accuracies": "accuracy"}
_FILE_NAME = re.compile(r"__(\d{4}-\d{2}-\d{2})-(\d{2})-(\d{2})-(\d{2})$")

_CURVES = tuple(f"{split}_{name}" for split in ("train", "valid", "test") for name in _NAMES)

DAMAGED_BYTES = 2**20
"""How much of a file that is not JSON is searched for the words of a run."""

Curves = dict[tuple[str, str], list[float]]


def import_deepobs(
    path: Path | str, *, on_left_out: Callable[[str], None] = warnings.warn
) -> list[Run]:
    """Runs in a JSON file of DeepOBS, or in all JSON files below a folder, in order of name.

    JSON files of a folder that hold no run (settings, tables of results), and hidden ones, are left
    out. A file that holds a run and is damaged is an error.

    Args:
        path: of a file or folder.
        on_left_out: told of every file of a folder that is left out, in one line; warns by default.

    Raises:
        ImportFormatError: there is no such file, no run in the folder, or one is damaged.
    """
    root = Path(path)
    if not root.is_dir():
        return [_run_in(root, _content(root))]
    files = sorted(root.rglob("*.json"))
    if not files:
        raise ImportFormatError(f"{root} holds no JSON file: give the folder of DeepOBS's results")
    runs: list[Run] = []
    left_out: list[str] = []
    for file in files:
        why, content = _no_run(file, file.relative_to(root))
        if why is None:
            runs.append(_run_in(file, content))
        else:
            left_out.append(f"left out {file}: {why}")
    if not runs:
        raise ImportFormatError(f"{root} holds no run of DeepOBS: {left_out[0]}")
    for line in left_out:
        on_left_out(line)
    return runs


def _no_run(file: Path, name: Path) -> tuple[str | None, Any]:
    """Why a file of a folder holds no run, in words; None and its content where it holds one.

    Raises:
        ImportFormatError: it holds a run, by its name or by a word in it, that cannot be read.
    """
    if any(part.startswith(".") for part in name.parts):
        return "it is hidden", None
    if not file.is_file():
        return "it is a folder" if file.is_dir() else "it is no file", None
    try:
        content = _content(file)
    except ImportFormatError:
        if _FILE_NAME.search(file.stem) or _names_a_run(file):
            raise
        return "it is not JSON, and holds no run of DeepOBS", None
    return (None, content) if _is_run(content) else ("it holds no run of DeepOBS", None)


def _names_a_run(file: Path) -> bool:
    """Whether a file that is not JSON holds a word that only runs do."""
    try:
        with file.open("rb") as stream:
            text = stream.read(DAMAGED_BYTES).decode("utf-8", "replace")
    except OSError:
        return True
    return any(f'"{word}"' in text for word in (*_CURVES, "testproblem", "random_seed"))


def _content(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=_once)
    except OSError as error:
        raise ImportFormatError(f"cannot read {file}: {error.strerror}") from None
    except RecursionError:
        raise ImportFormatError(f"{file} is nested too deep for a run of DeepOBS") from None
    except ValueError as error:
        raise ImportFormatError(f"{file} is not JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of two values of one name neither is the right one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for n, (name, _) in enumerate(pairs) if name in dict(pairs[:n]))
        raise ValueError(f"{shorten(twice)} stands twice in one object")
    return found


def _is_run(content: Any) -> bool:
    """Whether a file holds a run, whole or damaged: curves, or the problem with a seed."""
    if not isinstance(content, dict):
        return False
    return any(name in content for name in _CURVES) or {"testproblem", "random_seed"} <= set(
        content
    )


def _run_in(file: Path, content: Any) -> Run:
    if not isinstance(content, dict):
        raise ImportFormatError(f"{file} is no run of DeepOBS: expected an object of settings")
    try:
        return _run(content, file)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ImportFormatError(f"{file} is no run of DeepOBS: {what}") from None


def _run(content: Mapping[str, Any], file: Path) -> Run:
    pytorch = "optimizer_name" in content
    for name in ("optimizer_hyperparams", "optimizer_params", "hyperparams", "training_params"):
        if not isinstance(content.get(name, {}), dict):
            raise ValueError(f"{name} must be an object, got {shorten(content[name])}")
    if pytorch:
        source, optimizer = PYTORCH, content["optimizer_name"]
        settings = content.get("optimizer_hyperparams", content.get("optimizer_params", {}))
        hyperparameters = dict(settings)
        training = content.get("training_params") or content.get("analyzable_training_params") or {}
    else:
        source, optimizer, training = TENSORFLOW, content["optimizer"], content
        hyperparameters = {"lr": content["learning_rate"], **content["hyperparams"]}
    if content.get("weight_decay") is not None:
        hyperparameters["problem_weight_decay"] = content["weight_decay"]
    curves = _curves(content)
    measured = len(next(iter(curves.values())))
    epochs = whole_number(content["num_epochs"], "num_epochs", at_least=1)
    filled = _filled(curves, content, hyperparameters) if pytorch else 0
    reason = ""
    if filled:
        reason = f"imported from {source}: the loss was no number, {filled} epochs filled up"
    return foreign_run(
        source=source,
        problem=_name(content["testproblem"], "testproblem"),
        optimizer=_name(optimizer, "the optimizer"),
        hyperparameters=hyperparameters,
        seed=whole_number(content["random_seed"], "random_seed", at_least=0),
        epochs=epochs,
        batch_size=whole_number(content["batch_size"], "batch_size", at_least=1),
        metrics=[
            Measurement(UNKNOWN_STEP, float(epoch), split, name, values[epoch])
            for epoch in range(measured - filled)
            for (split, name), values in curves.items()
        ],
        status=Status.DIVERGED if filled else None,
        reason=reason,
        schedule=_schedule(training),
        environment={
            "source": source,
            "file": file.name,
            "train_log_interval": training.get("train_log_interval"),
        },
        started=_started(file),
    )


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what} must be a name, got {shorten(value)}")
    return value.strip()


def _curves(content: Mapping[str, Any]) -> Curves:
    """Per (split, name), the values before training and after each epoch; null is no number."""
    curves: Curves = {}
    for split in ("train", "valid", "test"):
        for plural, name in _NAMES.items():
            values = content.get(f"{split}_{plural}")
            if values is not None and not isinstance(values, list):
                raise ValueError(f"{split}_{plural} must be a list, got {shorten(values)}")
            if values and any(value is not None for value in values):
                curves[split, name] = [_figure(v, f"{split}_{plural}") for v in values]
    if ("test", "loss") not in curves:
        raise ValueError("'test_losses' is missing or empty")
    lengths = {len(values) for values in curves.values()}
    if len(lengths) > 1:
        raise ValueError(f"its curves have different lengths, {sorted(lengths)}")
    return curves


def _figure(value: Any, curve: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{curve} must hold numbers, got {shorten(value)}")
    if isinstance(value, str):
        return read_number(value)
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{curve} must hold numbers below 1.8e308, got {shorten(value)}") from None


def _filled(curves: Curves, content: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> int:
    """How many epochs at the end DeepOBS 1.2.0 filled up after a loss that was no number.

    They repeat every value before training to the last bit, which no epoch does that moved the
    weights. Where not one epoch moved them, the losses of the minibatches tell a run that stood
    still (they go on and vary) from one that was filled up (they stop, or repeat the first).
    """
    total = genuine = len(next(iter(curves.values())))
    while genuine > 1 and all(values[genuine - 1] == values[0] for values in curves.values()):
        genuine -= 1
    filled = total - genuine
    if genuine > 1 or not filled:
        return filled
    of_batches = content.get("minibatch_train_losses") or []
    if not isinstance(of_batches, list):
        got = shorten(of_batches)
        raise ValueError(f"minibatch_train_losses must be a list of numbers, got {got}")
    steps = [_figure(v, "minibatch_train_losses") for v in of_batches if v is not None]
    numbers = all(math.isfinite(v) for v in steps)
    still = len(steps) > filled and numbers and any(v != steps[0] for v in steps[-filled:])
    return 0 if still or by_value(hyperparameters.get("lr")) == 0 else filled


def _schedule(training: Mapping[str, Any]) -> dict[str, Any] | None:
    epochs, factors = training.get("lr_sched_epochs"), training.get("lr_sched_factors")
    if not epochs or not factors:
        return None
    if not (isinstance(epochs, list) and isinstance(factors, list)):
        raise ValueError(
            "lr_sched_epochs and lr_sched_factors must be lists, got "
            f"{shorten(epochs)} and {shorten(factors)}"
        )
    return {"name": "steps", "epochs": epochs, "factors": factors}


def _started(file: Path) -> str:
    """Time in the file's name, which carries no zone; DeepOBS writes it at the run's start."""
    found = _FILE_NAME.search(file.stem)
    return f"{found[1]}T{found[2]}:{found[3]}:{found[4]}" if found else ""
