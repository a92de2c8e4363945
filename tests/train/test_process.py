"""What a process that only trains sets for itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from small_problems import small, train

from optiscope.train.device import flushes_denormals, in_fast_layout

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


@pytest.mark.parametrize("shape", [(5, 1, 7, 6), (1, 1, 7, 6), (5, 3, 7, 6)])
def test_images_have_their_channels_last_and_gray_ones_are_not_copied(
    shape: tuple[int, ...],
) -> None:
    images = torch.randn(shape)
    fast = in_fast_layout(images)
    copied = images.contiguous().to(memory_format=torch.channels_last, copy=True)
    assert torch.equal(fast, images)
    assert fast.stride() == copied.stride()
    assert fast.is_contiguous(memory_format=torch.channels_last)
    assert (fast.data_ptr() == images.data_ptr()) == (shape[1] == 1)


def test_a_host_that_trains_keeps_its_denormals() -> None:
    assert train(small, epochs=1).environment["flush_denormal"] is False
    assert not flushes_denormals()
    assert torch.tensor(1e-30) * 1e-10 != 0
