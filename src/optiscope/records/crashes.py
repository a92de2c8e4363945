"""The runs of a study that ended in an exception, told once for each algorithm and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from optiscope.records.run import Run, Status
from optiscope.records.study_folder import Entry

__all__ = ["crash_text", "crashes"]


def crashes(ended: Iterable[tuple[Entry, Run]]) -> list[dict[str, Any]]:
    """Crashes by algorithm, problem and reason (the exception with its file and line), in order."""
    counts = Counter(
        (entry.algorithm, entry.problem, run.reason)
        for entry, run in ended
        if run.status is Status.CRASHED
    )
    return [
        {"algorithm": algorithm, "problem": problem, "runs": count, "reason": reason}
        for (algorithm, problem, reason), count in counts.items()
    ]


def crash_text(crash: dict[str, Any]) -> str:
    """One crash in words."""
    runs = "1 run" if crash["runs"] == 1 else f"{crash['runs']} runs"
    return f"{crash['algorithm']} on {crash['problem']}, {runs} crashed {crash['reason']}"
