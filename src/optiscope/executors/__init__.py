"""Anything with the contract of ``concurrent.futures``: here, a process pool."""

from optiscope.executors.process_pool import available_cores, process_pool

__all__ = ["available_cores", "process_pool"]
