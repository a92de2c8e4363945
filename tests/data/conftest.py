"""Fixtures of the data tests: caches that never touch the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from optiscope.data.folders import CACHE_DIR_VARIABLE, DATA_DIR_VARIABLE


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of decoded data, and no data folder but those a test names."""
    folder = tmp_path / "decoded-cache"
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(folder))
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that lasts for the session, so that real images are decoded once."""
    return tmp_path_factory.mktemp("shared-decoded-cache")
