"""Studies that run in seconds, and what of their folders must not depend on interruptions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from optiscope.records import Run, RunStore
from optiscope.study import Study, load_study

# Two problems, three ways to choose hyperparameters, an untuned algorithm.
SMALL = """\
name = "small"
question = "Which?"
problems = ["digits_logreg", "digits_mlp"]
epochs = 1
batch_size = 128
seeds = [11, 12]

[tuning]
budget = 2
seeds = [1]

[[algorithms]]
label = "SGD"
optimizer = "sgd"

[[algorithms]]
label = "Adam"
optimizer = "adam"
sampler = "tpe"

[[algorithms]]
label = "Fixed"
optimizer = "momentum"
fixed = { lr = 0.01 }
schedule = { name = "linear_decay" }
"""
TRIALS = 2 * (2 + 2 + 2 + 2 + 2)  # problems × (tuning of two, reporting of three)

# What may differ between two runs of one trial on one machine.
FLEETING = ("seconds", "started", "peak_memory_bytes", "environment", "metrics_sha256", "digest")


def essence(folder: Path) -> dict[str, Any]:
    """All of a study's folder that must be the same, bit for bit, however often it was stopped."""
    store = RunStore(folder / "runs")
    runs: dict[str, Any] = {}
    for run in store.scan(metrics=True):
        assert isinstance(run, Run), str(run)
        values = {k: v for k, v in run.to_dict().items() if k not in FLEETING}
        rows = hashlib.sha256(repr(list(run.metrics)).encode()).hexdigest()
        runs[run.trial.hash] = json.dumps(values, sort_keys=True) + rows
    return {
        "runs": runs,
        "ledger": (folder / "ledger.json").read_bytes(),
        "declaration": (folder / "study.json").read_bytes(),
    }


def declared(folder: Path, text: str = SMALL) -> Study:
    """The study that a text declares, which lies in the folder from then on."""
    path = folder / "study.toml"
    path.write_text(text)
    return load_study(path)


class Inline(Executor):
    """Runs each task when it is submitted, in this process."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
