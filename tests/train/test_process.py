"""What a process that only trains sets for itself."""

from __future__ import annotations

import subprocess
import sys

import torch
from small_problems import small, train

from optiscope.train.device import flushes_denormals

PREPARED = """
import torch
from optiscope.train.environment import environment
from optiscope.train.device import prepare_process

prepare_process()
torch.set_num_threads(2)
small = torch.full((2_000_000,), 1e-30) * 1e-10
print(int(small.count_nonzero()), environment(torch.device("cpu"))["flush_denormal"])
"""


def test_all_threads_of_a_prepared_process_count_denormals_as_zero() -> None:
    result = subprocess.run([sys.executable, "-c", PREPARED], capture_output=True, text=True)
    assert result.stdout.split() == ["0", "True"], result.stderr


def test_a_host_that_trains_keeps_its_denormals() -> None:
    assert train(small, epochs=1).environment["flush_denormal"] is False
    assert not flushes_denormals()
    assert torch.tensor(1e-30) * 1e-10 != 0
