"""What a process does first whose only work is training."""

from __future__ import annotations

import torch

from optiscope.train.memory import reuse_freed_memory

__all__ = ["flushes_denormals", "prepare_process"]


def prepare_process() -> None:
    """Have this process keep the memory that it frees, and count denormal numbers as zero.

    Weights that only an L2 term still moves, those of units that are dead, shrink to below 1e-38
    under optimizers like Adam. Arithmetic with such numbers is slow on a CPU: a step of a
    convolutional network of which half the filters have come to this took forty times as long.
    Threads take the setting over when they begin, so this comes before torch's first parallel
    work. For processes whose only work is training; a library has no business to set this for its
    host.
    """
    torch.set_flush_denormal(True)
    reuse_freed_memory()


def flushes_denormals() -> bool:
    """Whether numbers below float32's smallest normal one count as zero in this thread."""
    smallest = torch.tensor(torch.finfo(torch.float32).tiny)
    return bool(smallest * 0.5 == 0)
