"""Data sets are copied to a node's own disk whole, once, and only where there is room."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner

from optiscope.data.catalogue import locate
from optiscope.data.errors import BadFile
from optiscope.data.stage import stage

NAME = "mnist"


def test_a_data_set_is_copied_once_and_read_from_there(real_data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    staged = stage([NAME, "digits", NAME], tmp_path / "node", real_data, said.append)
    source, copy = locate(NAME, real_data), locate(NAME, tmp_path / "node")
    assert (staged.folder, staged.copied) == (tmp_path / "node", len(source.paths))
    for first, second in zip(source.paths, copy.paths, strict=True):
        assert first.read_bytes() == second.read_bytes()
    before = [path.stat().st_mtime_ns for path in copy.paths]
    assert stage([NAME], tmp_path / "node", real_data).copied == 0
    assert before == [path.stat().st_mtime_ns for path in copy.paths]
    assert not list((tmp_path / "node").rglob(".*"))


def test_a_copy_that_was_cut_is_made_again(real_data: Path, tmp_path: Path) -> None:
    stage([NAME], tmp_path, real_data)
    victim = locate(NAME, tmp_path).paths[0]
    victim.write_bytes(victim.read_bytes()[:100])
    assert stage([NAME], tmp_path, real_data).copied == 1


def test_a_damaged_copy_is_one_line(real_data: Path, tmp_path: Path) -> None:
    stage([NAME], tmp_path, real_data)
    victim = locate(NAME, tmp_path).paths[0]
    victim.write_bytes(bytes(victim.stat().st_size))
    with pytest.raises(BadFile) as caught:
        stage([NAME], tmp_path, real_data)
    assert "\n" not in str(caught.value)


def test_without_room_the_shared_folder_is_read(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 0, 100))
    staged = stage([NAME], tmp_path / "node", real_data)
    assert (staged.folder, staged.copied) == (real_data, 0)
    assert "has 100 bytes left" in staged.reason
    assert not list((tmp_path / "node").iterdir())


def test_what_comes_with_a_package_is_not_copied(tmp_path: Path) -> None:
    assert stage(["digits"], tmp_path / "node").folder is None
    assert not (tmp_path / "node").exists()


def test_a_lock_of_a_process_that_is_gone_is_taken_over(real_data: Path, tmp_path: Path) -> None:
    import platform

    (tmp_path / ".staging").write_text(f"{platform.node()} 4194303")
    assert stage([NAME], tmp_path, real_data).copied
    (tmp_path / ".staging").write_text("elsewhere 1")
    os.utime(tmp_path / ".staging", (0, 0))
    assert stage([NAME], tmp_path, real_data).copied == 0


def test_the_command_prints_the_folder_to_read(real_data: Path, tmp_path: Path) -> None:
    from optiscope.cli.root import root

    (tmp_path / "a.toml").write_text(
        'name = "a"\nquestion = "?"\nproblems = ["mnist_logreg", "digits_logreg"]\nseeds = [1]\n'
        '[[algorithms]]\noptimizer = "sgd"\nfixed = { lr = 0.1 }\n'
    )
    words = ["data", "stage", str(tmp_path / "a.toml"), "--to", str(tmp_path / "node")]
    result = CliRunner().invoke(root, [*words, "--data-dir", str(real_data)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'node'}\n"
