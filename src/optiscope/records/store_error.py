"""Why a folder of records cannot be used."""

from __future__ import annotations

import errno
from pathlib import Path

from optiscope.errors import ExitCode, OptiscopeError

__all__ = ["StoreError", "explain"]


class StoreError(OptiscopeError):
    """A folder cannot be written or read; the message says which and why."""

    exit_code = ExitCode.STORE


def explain(error: OSError, folder: Path) -> str:
    """What a user can do about an error of the system."""
    causes = {
        errno.ENOSPC: "the disk is full: free some space and start again, nothing recorded is lost",
        errno.EDQUOT: "the disk quota is used up: free some space and start again",
        errno.EROFS: "the file system is read-only: choose another folder with --out",
        errno.EACCES: "no permission: choose another folder with --out",
        errno.EPERM: "no permission: choose another folder with --out",
    }
    cause = causes.get(error.errno or 0, error.strerror or str(error))
    return f"cannot use {folder}: {cause}"
