"""The order in memory in which convolutions on the CPU are fastest."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["in_fast_layout"]


def in_fast_layout(inputs: Tensor) -> Tensor:
    """``inputs``, images [B, C, H, W] on the CPU with the channels last in memory.

    Torch's convolutions keep the layout of their input, so that this alone puts a whole network
    into the one that its CPU kernels like; values and shapes are the same. Other inputs, and those
    on a GPU, where single precision prefers the usual order, come back as they are.
    """
    if inputs.dim() != 4 or inputs.device.type != "cpu" or not inputs.is_floating_point():
        return inputs
    return inputs.to(memory_format=torch.channels_last)
