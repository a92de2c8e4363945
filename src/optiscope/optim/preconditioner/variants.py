"""Variants of the preconditioner, as data: what is inside, and which phases are left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from optiscope.optim.preconditioner.optimizer import Preconditioner

__all__ = [
    "AdaptiveSGD",
    "OnlyAdaptiveSGD",
    "PreconditionedSGD",
    "PreconditionedTunedMomentum",
    "PreconditionedTunedSGD",
]


class PreconditionedSGD(Preconditioner):
    """SGD on the preconditioned gradient, at the constructed rate."""

    def __init__(self, params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("optim_class", torch.optim.SGD)
        super().__init__(params, *args, **kwargs)


class AdaptiveSGD(PreconditionedSGD):
    """SGD at the constructed rate; the Hessian is estimated, but does not precondition."""

    preconditions = False


class OnlyAdaptiveSGD(AdaptiveSGD):
    """SGD at the rate constructed from the prior alone."""

    observes = False


class PreconditionedTunedSGD(PreconditionedSGD):
    """SGD on the preconditioned gradient, at the fixed rate ``lr``."""

    constructs_rate = False


class PreconditionedTunedMomentum(Preconditioner):
    """SGD with momentum on the preconditioned gradient, at the fixed rate ``lr``."""

    constructs_rate = False

    def __init__(
        self, params: Iterable[Any], *args: Any, momentum: float = 0.9, **kwargs: Any
    ) -> None:
        kwargs.setdefault("optim_class", torch.optim.SGD)
        super().__init__(params, *args, momentum=momentum, **kwargs)
