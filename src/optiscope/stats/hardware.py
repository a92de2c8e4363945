"""Whether the seconds of runs may be compared: only where the same hardware did the same work.

Losses may be compared across machines; seconds may not. They tell of two algorithms only where
processor, GPU, cores (of a container: what its quota is worth) and threads are the same, and where
a run had them to itself from its first step to its last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from optiscope.stats.naming import counted

__all__ = ["hardware", "time_refusal", "untimed"]


def hardware(environment: Mapping[str, Any]) -> str:
    """Processor, GPU, cores and threads of a run, in words; what a record does not hold is out."""
    device = str(environment.get("device", "cpu"))
    parts = [
        str(environment.get("processor", "")),
        "" if device == "cpu" else device,
        _count(environment, "cores", "core"),
        _count(environment, "threads", "thread"),
    ]
    return ", ".join(part for part in parts if part) or "hardware that is not recorded"


def untimed(environment: Mapping[str, Any]) -> str | None:
    """Why the seconds of a run tell nothing of its algorithm; None where they may.

    A run that went on after an interruption spent time on loading its state, and may have changed
    machines; one that shared its device (``packing``) or its batch (``together``) with other
    trials waited for them.
    """
    sessions = environment.get("sessions")
    if isinstance(sessions, list | tuple) and len(sessions) > 1:
        return "resumed after an interruption"
    if environment.get("packing"):
        return "shared a GPU with other trials"
    members = environment.get("together")
    if isinstance(members, int) and members > 1:
        return "trained in one batch with other trials"
    return None


def time_refusal(
    problem: str, where: Iterable[str], reasons: Iterable[str | None] = ()
) -> str | None:
    """Why seconds on a problem cannot be compared, in words; None where they can.

    Args:
        problem: its name.
        where: :func:`hardware` of every run that was timed.
        reasons: :func:`untimed` of every run; those that have one are not in ``where``.
    """
    places = Counter(where)
    if len(places) > 1:
        kinds = " and ".join(f"{name} ({counted(n, 'run')})" for name, n in places.most_common(3))
        more = f" and {len(places) - 3} more kinds" if len(places) > 3 else ""
        return (
            f"the runs on {problem} are of different hardware, {kinds}{more}: "
            "their seconds are not compared"
        )
    left_out = Counter(reason for reason in reasons if reason is not None)
    if not places and left_out:
        words = " and ".join(f"{n} {reason}" for reason, n in left_out.items())
        return f"no run on {problem} was timed alone from its first step to its last: {words}"
    return None


def _count(environment: Mapping[str, Any], key: str, word: str) -> str:
    value = environment.get(key)
    return counted(value, word) if isinstance(value, int) else ""
