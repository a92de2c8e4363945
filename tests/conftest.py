"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

DATA_DIR_VARIABLE = "OPTISCOPE_DATA_DIR"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data sets, or a skip that says how to point at one."""
    folder = os.environ.get(DATA_DIR_VARIABLE)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"real data not found: set {DATA_DIR_VARIABLE} to a folder with MNIST/raw, ...")
    return Path(folder)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
