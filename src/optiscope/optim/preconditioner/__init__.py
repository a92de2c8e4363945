"""Probabilistic preconditioner: a low-rank posterior of the Hessian, and its variants."""

from __future__ import annotations

from optiscope.optim.preconditioner.optimizer import Preconditioner
from optiscope.optim.preconditioner.variants import (
    AdaptiveSGD,
    OnlyAdaptiveSGD,
    PreconditionedSGD,
    PreconditionedTunedMomentum,
    PreconditionedTunedSGD,
)

__all__ = [
    "AdaptiveSGD",
    "OnlyAdaptiveSGD",
    "PreconditionedSGD",
    "PreconditionedTunedMomentum",
    "PreconditionedTunedSGD",
    "Preconditioner",
]
