"""How many cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from optiscope.control_groups import group_files

__all__ = ["available_cores"]


def available_cores() -> int:
    """Cores this process may use; under a quota of time, as many as the smallest is worth.

    A container, a batch system's job and the groups that hold them may each have a quota (Linux,
    control groups of version 2).
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    quotas = [worth for file in group_files("cpu.max") if (worth := _worth(file)) is not None]
    return max(1, min([cores, *quotas]))


def _worth(file: Path) -> int | None:
    """Whole cores that a quota is worth: microseconds of all cores, and of the period."""
    try:
        quota, period = file.read_text().split()
        return int(quota) // int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
