"""``stats`` needs no torch."""

from __future__ import annotations

import subprocess
import sys


def test_claims_and_importers_load_without_torch() -> None:
    code = (
        "import sys, optiscope.stats.claims, optiscope.stats.importers, "
        "optiscope.stats.tuning_curve; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
