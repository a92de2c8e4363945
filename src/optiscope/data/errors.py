"""Errors of the data part: each is one readable line."""

from __future__ import annotations

from optiscope.errors import ExitCode, OptiscopeError

__all__ = ["BadFile", "DataError", "FetchFailed", "MissingData", "UnknownDataError"]


class DataError(OptiscopeError):
    """Data cannot be used; the message is one line that says why and what to do."""

    exit_code = ExitCode.DATA

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class UnknownDataError(DataError, ValueError):
    """A name that no data set has."""

    exit_code = ExitCode.USAGE


class MissingData(DataError):
    """A data set is not in the folder that was searched, or only a part of it is."""


class BadFile(DataError):
    """A file is truncated, of another format, or contradicts itself or its companions."""


class FetchFailed(DataError):
    """A download did not complete, or what came is not what was asked for."""
