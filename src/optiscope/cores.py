"""How many cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_cores"]

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of all cores in a period of microseconds, or the word max (Linux, cgroup v2)."""


def available_cores() -> int:
    """Cores this process may use; of a container with a quota of time, as many as that is worth."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return cores
