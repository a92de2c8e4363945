"""What a worker does once, so that none of the children it forks has to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from optiscope.data import load_digits

CHILD = """
import json, sys
from pathlib import Path
from optiscope.records import Trial
from optiscope.study import work
from optiscope.optim import registry

work._warm_up()
before = set(sys.modules)
trial = Trial("digits_logreg", 1, "adam", {"lr": 0.01}, seed=1, epochs=1, batch_size=32)
work._record([trial], Path(sys.argv[1]), None)
new = [name for name in set(sys.modules) - before if not name.startswith("optiscope")]
print(json.dumps({"new": new, "heavy": sorted({"sklearn", "optuna"} & set(sys.modules))}))
"""


def test_a_child_of_a_warm_worker_imports_next_to_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["heavy"] == []
    packages = {name.partition(".")[0] for name in said["new"]}
    assert not {"numpy", "pandas", "pyarrow", "scipy", "sympy"} & packages
    assert len(said["new"]) < 40, said["new"]  # without warming up it is hundreds


def test_digits_are_those_of_scikit_learn() -> None:
    original = pytest.importorskip("sklearn.datasets").load_digits()
    digits = load_digits()
    assert torch.equal(digits.images[:, 0].double(), torch.from_numpy(original.images))
    assert torch.equal(digits.labels, torch.from_numpy(original.target))
