"""``report`` loads no torch, and keeps no pyplot state."""

from __future__ import annotations

import subprocess
import sys


def test_a_report_is_made_without_torch() -> None:
    code = (
        "import sys, optiscope.report, optiscope.report.figures.optimizer_time; "
        "import optiscope.stats.profiles; "
        "print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_summary_on_the_terminal_needs_no_matplotlib() -> None:
    code = (
        "import sys, optiscope.report.terminal, optiscope.report.content; "
        "print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
