"""A study on a disk that is too small goes on, once there is room, as if nothing had been."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bad_studies import GOOD

from optiscope.records import Run, RunStore

if TYPE_CHECKING:
    from conftest import Command


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs rights that this user does not have")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def grow(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


@pytest.mark.usefixtures("_inline")
def test_a_study_on_a_disk_that_fills(small_disk: Path, tmp_path: Path, optiscope: Command) -> None:
    (tmp_path / "study.toml").write_text(GOOD)
    store = RunStore(small_disk / "out" / "runs")

    def bench() -> tuple[int, list[str]]:
        outcome = optiscope("bench", tmp_path / "study.toml", "--out", small_disk / "out")
        return outcome.code, outcome.err.splitlines()

    def says_that_it_is_full() -> bool:
        """In one line; a record, the ledger or the page found no room, whichever came first."""
        code, errors = bench()
        (line,) = errors
        return (
            code == 4
            and line.startswith(f"optiscope: cannot use {small_disk / 'out'}")
            and line.endswith(
                ": the disk is full: free some space and start again, nothing recorded is lost"
            )
        )

    assert says_that_it_is_full()
    kept = {run.trial.hash: run for run in store.scan() if isinstance(run, Run)}
    assert 0 < len(kept) == len(store.hashes()) < 8

    grow(small_disk, "112k")  # enough for the records, not for the page
    assert says_that_it_is_full()
    assert len(store.hashes()) == 8
    assert not list((small_disk / "out").glob("*report*"))

    grow(small_disk, "64m")
    assert bench() == (0, [])
    found = {run.trial.hash: run for run in store.scan() if isinstance(run, Run)}
    assert len(found) == 8
    assert {key: found[key] for key in kept} == kept
    assert (small_disk / "out" / "report.html").is_file()
