"""The published figures, as they come with the package (see published/README.md)."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

__all__ = ["Published", "published_costs", "published_curve", "published_sensitivity"]

CHANCE = 0.12  # test accuracy, of ten classes, below which nothing was learnt


@dataclass(frozen=True)
class Published:
    """A mean over runs; ``deviation`` is NaN where there was one run."""

    mean: float
    deviation: float
    runs: int


@cache
def _rows(name: str) -> tuple[dict[str, str], ...]:
    path = resources.files("optiscope.reproduction") / "published" / f"{name}.csv"
    return tuple(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def published_curve(problem: str, optimizer: str, batch_size: int = 128) -> dict[int, Published]:
    """Test accuracy by epoch; empty where that was not published."""
    wanted = (problem, optimizer, str(batch_size))
    return {
        int(row["epoch"]): _published(row["test_acc_mean"], row["test_acc_std"], row["n_runs"])
        for row in _rows("curves")
        if (row["problem"], row["optimizer"], row["batch_size"]) == wanted
    }


def published_costs() -> dict[str, Published]:
    """Seconds of training over those of SGD, by optimizer; deviations as of a sample (ddof 1)."""
    found = {}
    for row in _rows("cost"):
        known = _published(row["ratio_mean"], row["ratio_std"], row["n_runs"])
        of_sample = math.sqrt(known.runs / (known.runs - 1))  # published with ddof 0
        found[row["optimizer"]] = replace(known, deviation=of_sample * known.deviation)
    return found


def published_sensitivity(optimizer: str) -> dict[float, Published]:
    """Final test accuracy by rate (of the first epoch; of SGD, of all).

    NaN where the run diverged or ended at chance.
    """
    found = {}
    for row in _rows("sensitivity"):
        if row["optimizer"] == optimizer:
            failed = row["diverged"] == row["n_runs"] or float(row["final_test_acc"]) < CHANCE
            value = "" if failed else row["final_test_acc"]
            found[float(row["lr"])] = _published(value, row["final_test_acc_std"], row["n_runs"])
    return found


def _published(mean: str, deviation: str, runs: str) -> Published:
    return Published(float(mean or math.nan), float(deviation or math.nan), int(runs))
