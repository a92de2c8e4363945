"""Former home of the preconditioner's variants, by which studies may name them."""

from __future__ import annotations

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
]
