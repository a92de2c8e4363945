"""Trials on a Dask cluster (extra ``dask``), whose scheduler distributes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from optiscope.errors import ExitCode, OptiscopeError, shorten

__all__ = ["DaskError", "dask_executor"]

SCHEME = "dask://"
SECONDS = 20  # to reach a scheduler


class DaskError(OptiscopeError, RuntimeError):
    """No such cluster, or not the extra that talks to it; one line."""

    exit_code = ExitCode.USAGE


def dask_executor(address: str) -> Callable[[int], Executor]:
    """Maker of executors on the cluster at ``dask://HOST:PORT``, for ``run_study(executor=...)``.

    Its workers must have one thread each: trials in threads share random numbers and clocks.

    Raises:
        DaskError: the extra is not installed, nobody answers, or workers have several threads.
    """
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise DaskError(
            "a Dask cluster needs the extra dask: pip install 'optiscope[dask]'"
        ) from None
    place = "tcp://" + address.removeprefix(SCHEME)
    try:
        client: Any = distributed.Client(place, timeout=SECONDS)
    except Exception as error:
        raise DaskError(
            f"expected a Dask scheduler at {shorten(address)}, got no answer "
            f"({type(error).__name__}): start one with `dask scheduler`"
        ) from None
    threads = [w["nthreads"] for w in client.scheduler_info(n_workers=-1)["workers"].values()]
    if any(count > 1 for count in threads):
        raise DaskError(
            f"expected Dask workers of one thread, got {max(threads)}: start them with "
            "`dask worker --nthreads 1`"
        )
    return lambda workers: client.get_executor(pure=False)
