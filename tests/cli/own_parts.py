"""An optimizer and a problem of one's own, reached by import path."""

from __future__ import annotations

import dataclasses

import torch

from optiscope import problems


class Slow(torch.optim.SGD):
    """SGD at a tenth of the rate."""

    def __init__(self, params: object, lr: float = 0.1) -> None:
        super().__init__(params, lr / 10)  # type: ignore[arg-type]


class Failing(torch.optim.SGD):
    """Fails with words in brackets, as PyTorch's allocator does."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        raise RuntimeError("[enforce fail at alloc.cpp:127] cannot read [/scratch/x] now")


mine = dataclasses.replace(problems.get("digits_logreg"), name="mine", epochs=2)


def made() -> problems.Problem:
    return dataclasses.replace(mine, name="made")
