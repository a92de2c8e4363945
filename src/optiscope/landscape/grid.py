"""Many evaluations of one function, on all cores where that pays.

On a CPU a network of this size does not fill two cores: processes that share nothing are twice as
fast on two of them, while batching points with vmap gains nothing (measured: 0.5 to 1.0).
"""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from optiscope.cores import available_cores

__all__ = ["evaluate_all"]

WORTHWHILE = 4.0
"""Seconds of work below which processes are not started."""

OnProgress = Callable[[int, int], None]

_function: Callable[[Any], Any] | None = None


def evaluate_all(
    function: Callable[[Any], Any],
    points: Sequence[Any],
    *,
    processes: int | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[list[Any], int]:
    """``function`` at every point, in order, and the number of processes used.

    Args:
        function: need not be picklable; its results must be.
        points: picklable values.
        processes: at most; None: as many as there are cores, where the work is worth it and
            processes can be forked (on Linux).
        on_progress: told of points done and of all.
    """
    results: list[Any] = []
    begun = time.perf_counter()
    for point in points[:2]:  # the first one warms up
        begun = time.perf_counter()
        results.append(function(point))
        _tell(on_progress, len(results), len(points))
    rest = points[len(results) :]
    seconds = (time.perf_counter() - begun) * len(rest)
    count = available_cores() if processes is None else processes
    if processes is None and seconds < WORTHWHILE:
        count = 1
    count = min(count, max(1, len(rest)))
    if count == 1 or sys.platform != "linux":
        for point in rest:
            results.append(function(point))
            _tell(on_progress, len(results), len(points))
        return results, 1
    global _function
    _function = function
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            pool = multiprocessing.get_context("fork").Pool(count, initializer=_begin)
        with pool:
            chunk = max(1, math.ceil(len(rest) / (count * 16)))
            for result in pool.imap(_call, rest, chunksize=chunk):
                results.append(result)
                _tell(on_progress, len(results), len(points))
    finally:
        _function = None
    return results, count


def _begin() -> None:
    """One thread a process: they share the cores already, and forked OpenMP threads would hang."""
    torch.set_num_threads(1)


def _call(point: Any) -> Any:
    assert _function is not None
    return _function(point)


def _tell(on_progress: OnProgress | None, done: int, total: int) -> None:
    if on_progress is not None:
        on_progress(done, total)
