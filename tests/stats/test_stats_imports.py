"""``stats`` knows ``records`` and nothing else of ours, and needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import optiscope.stats

FOLDER = Path(optiscope.stats.__file__).parent


def test_stats_imports_only_records_and_itself() -> None:
    files = sorted(FOLDER.rglob("*.py"))
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file} uses a relative import"
                names = [node.module or ""]
            for name in names:
                ours = name.split(".")[0] == "optiscope"
                assert not ours or name.split(".")[1:2] in (["records"], ["stats"]), (file, name)


def test_claims_and_importers_load_without_torch() -> None:
    code = (
        "import sys, optiscope.stats.claims, optiscope.stats.importers, "
        "optiscope.stats.tuning_curve; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
