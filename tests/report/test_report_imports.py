"""``report`` knows ``stats`` and ``records`` only, loads no torch, and keeps no pyplot state."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import optiscope.report

FOLDER = Path(optiscope.report.__file__).parent


def test_report_imports_stats_records_and_itself() -> None:
    files = sorted(FOLDER.rglob("*.py"))
    assert len(files) > 15
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file} uses a relative import"
                names = [node.module or ""]
            for name in names:
                part = name.split(".")[1:2]
                ours = name.split(".")[0] == "optiscope"
                assert not ours or part[0] in ("records", "stats", "report"), (file, name)
                assert name != "matplotlib.pyplot", file


def test_a_report_is_made_without_torch() -> None:
    code = (
        "import sys, optiscope.report, optiscope.report.time_figure, optiscope.stats.profiles; "
        "print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
