"""What Lark's state of given parameters takes, before there is one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from optiscope.optim.lark.batching import pairs_of
from optiscope.optim.lark.reading import matrix_shape
from optiscope.optim.lark.settings import LarkSettings
from optiscope.optim.lark.weights import LOW_PRECISION

__all__ = ["LarkMemory", "memory_of"]


@dataclass(frozen=True)
class LarkMemory:
    """Memory in bytes.

    Attributes:
        parameters: of the parameters themselves.
        momentum: of the averages of gradients, and of the vectors' second moments.
        factors: of eigenvectors, their images and small numbers.
        copies: of the average of weights, and of precise copies of weights of low precision.
        scratch: of the direction of the largest matrix, which lasts between steps.
    """

    parameters: int
    momentum: int
    factors: int
    copies: int
    scratch: int

    @property
    def state(self) -> int:
        """What ``state_dict`` holds: all but parameters and scratch."""
        return self.momentum + self.factors + self.copies

    @property
    def total(self) -> int:
        """What the optimizer adds to the parameters and their gradients."""
        return self.state + self.scratch

    def __str__(self) -> str:
        share = self.total / self.parameters if self.parameters else 0.0
        return f"{self.total / 2**20:.1f} MiB, {share:.1f} times the parameters"


def memory_of(parameters: Iterable[tuple[Tensor, LarkSettings]]) -> LarkMemory:
    """Memory of the state of parameters, each with its group's settings.

    The scratch is that of the largest single matrix; layers of equal shape that are treated at once
    take as much as all of them.
    """
    given = momentum = factors = copies = scratch = 0
    for p, settings in parameters:
        size, shape = p.numel(), matrix_shape(p.shape, settings.read_as)
        width = torch.promote_types(p.dtype, torch.float32).itemsize
        given += size * p.element_size()
        copies += size * width * (settings.total_steps is None)
        copies += size * width * (p.dtype in LOW_PRECISION)
        if not size:
            continue
        if not shape:
            momentum += (2 * size + 1) * width
            continue
        stack, (m, n) = math.prod(shape[:-2]), shape[-2:]
        left, right = pairs_of(p, {}, settings)
        blocks = 2 * (left * m + right * n) + 2 * (left + right) + 2
        momentum += size * width
        factors += stack * blocks * width + 4  # and the count of gradients
        scratch = max(scratch, size * width)
    return LarkMemory(given, momentum, factors, copies, scratch)
