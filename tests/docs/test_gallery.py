"""Every script of docs/gallery runs, asserts its own result and ends in a figure."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
SCRIPTS = sorted(path.stem for path in GALLERY.glob("*.py") if path.name != "make.py")
SLOW = {"broken_script", "large_batches", "study_from_python"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in SCRIPTS],
)
def test_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(GALLERY / f"{name}.py"), run_name="__main__")
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", SCRIPTS)
def test_page_asserts_something_and_has_its_figure(name: str) -> None:
    source = (GALLERY / f"{name}.py").read_text(encoding="utf-8")
    assert source.count("\nassert ") >= 2
    assert (GALLERY / "figures" / f"{name}.png").stat().st_size < 150_000


def test_gallery_has_a_dozen_pages() -> None:
    assert len(SCRIPTS) >= 12
