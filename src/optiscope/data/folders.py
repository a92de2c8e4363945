"""Where data sets and decoded copies of them live on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from optiscope.data.errors import MissingData

__all__ = ["CACHE_DIR_VARIABLE", "DATA_DIR_VARIABLE", "resolve_cache_dir", "resolve_data_dir"]

DATA_DIR_VARIABLE = "OPTISCOPE_DATA_DIR"
CACHE_DIR_VARIABLE = "OPTISCOPE_CACHE_DIR"


def resolve_data_dir(data_dir: str | Path | None = None) -> Path:
    """Folder of the data sets: the argument, else ``OPTISCOPE_DATA_DIR``, else the user's cache.

    The folder need not exist: a download creates it.

    Raises:
        MissingData: the place exists and is not a folder.
    """
    chosen = data_dir if data_dir is not None else os.environ.get(DATA_DIR_VARIABLE) or None
    folder = (
        Path(chosen).expanduser() if chosen is not None else user_cache_path("optiscope") / "data"
    )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise MissingData(
            f"expected a data folder, got the file {folder}: "
            f"point --data-dir or {DATA_DIR_VARIABLE} at the folder that holds the data sets"
        )
    return folder


def resolve_cache_dir() -> Path:
    """Folder for decoded copies: ``OPTISCOPE_CACHE_DIR``, else the user's cache."""
    chosen = os.environ.get(CACHE_DIR_VARIABLE)
    return Path(chosen).expanduser() if chosen else user_cache_path("optiscope") / "decoded"
