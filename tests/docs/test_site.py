"""The site: every page is in the navigation, every public name has a docstring, and it builds."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("mkdocs", reason="the site needs the extra docs")

ROOT = Path(__file__).parents[2]


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}
    listed = set(re.findall(r"[\w/.-]+\.md", navigation))
    made = {"gallery/index.md", "reference/index.md", "results.md"}
    assert pages - listed == set(), "add these pages to nav in mkdocs.yml"
    assert listed - pages <= made


def test_every_public_name_has_a_docstring() -> None:
    reference = hook("reference_pages")
    assert reference.missing_docstrings() == []
    assert "::: optiscope.Lark" in reference.page_of("optiscope")


def test_a_gallery_script_becomes_a_page() -> None:
    gallery = hook("gallery_pages")
    page = gallery.page_of(gallery.GALLERY / "saddles.py")
    assert page.markdown.startswith("# A saddle holds first-order methods up")
    assert "![" in page.markdown
    assert "# %%" not in page.markdown
    assert "## How long it takes" in page.markdown


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "reference" / "optiscope.html").exists()
