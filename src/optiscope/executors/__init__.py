"""Anything with the contract of ``concurrent.futures``, and how trials go through it."""

from optiscope.cores import available_cores
from optiscope.executors.dispatch import Dispatch, WorkerError
from optiscope.executors.process_pool import process_pool

__all__ = ["Dispatch", "WorkerError", "available_cores", "process_pool"]
