"""The live page of a watch: one self-contained file, replaced as a whole while training goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from optiscope.atomic_file import write_atomically

__all__ = ["render", "write_page"]

PLACE = "/*DATA*/null"


def render(data: Mapping[str, Any]) -> str:
    """The page of ``data`` (state, step, findings, series, costs) as HTML without any link."""
    template = resources.files("optiscope.report.cockpit").joinpath("page.html").read_text("utf-8")
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    # inside <script>: no tag may end early, and no line separator may break the string
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return template.replace(PLACE, safe, 1)


def write_page(path: Path, data: Mapping[str, Any]) -> Path:
    """Write the page beside ``path`` and put it in its place, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render(data))
    return path
