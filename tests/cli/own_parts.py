"""An optimizer and a problem of one's own, reached by import path."""

from __future__ import annotations

import dataclasses

import torch

from optiscope import problems


class Slow(torch.optim.SGD):
    """SGD at a tenth of the rate."""

    def __init__(self, params: object, lr: float = 0.1) -> None:
        super().__init__(params, lr / 10)  # type: ignore[arg-type]


mine = dataclasses.replace(problems.get("digits_logreg"), name="mine", epochs=2)


def made() -> problems.Problem:
    return dataclasses.replace(mine, name="made")
