"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("optiscope", deadline=None)  # a busy machine is no fault of a test
settings.load_profile("optiscope")

DATA_DIR_VARIABLE = "OPTISCOPE_DATA_DIR"
REQUIRE_DATA_VARIABLE = "OPTISCOPE_REQUIRE_DATA"
REQUIRE_BROWSER_VARIABLE = "OPTISCOPE_REQUIRE_BROWSER"


def _skip_or_fail(reason: str, *, required: str) -> None:
    """Skip, or fail where the environment says that what is missing must be there."""
    if os.environ.get(required):
        pytest.fail(f"{required} is set, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real data sets, or a skip that says how to point at one."""
    folder = os.environ.get(DATA_DIR_VARIABLE)
    if not folder or not Path(folder).is_dir():
        _skip_or_fail(
            f"real data not found: set {DATA_DIR_VARIABLE} to a folder with MNIST/raw, ...",
            required=REQUIRE_DATA_VARIABLE,
        )
    return Path(folder or "")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the Chromium that pages are rendered in, or a skip."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        _skip_or_fail("chromium not found: install it", required=REQUIRE_BROWSER_VARIABLE)
    return path or ""


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Let ``os.fsync`` check its descriptor and return: no test survives a power failure.

    The suite syncs tens of thousands of small files at some milliseconds each. Processes that a
    test starts sync in earnest.
    """

    def checked(descriptor: int) -> None:
        os.fstat(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", checked)
        yield


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """One seed, and denormals as they come: commands run in this process count them as zero."""
    torch.manual_seed(0)
    torch.set_flush_denormal(False)


def _nothing_to_read() -> None:
    """Give this process, and all that it starts, an empty standard input.

    Where a runner has none, or a terminal, a child that reads would wait for ever.
    """
    nothing = os.open(os.devnull, os.O_RDONLY)
    if nothing != 0:
        os.dup2(nothing, 0)
        os.close(nothing)


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach the tests of it also where the suite runs in the background.

    A shell without job control has the commands that it puts there ignore SIGINT.
    """
    if not config.getoption("usepdb"):
        _nothing_to_read()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
