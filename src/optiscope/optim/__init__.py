"""Curvature-aware optimizers, and the pure mathematics under them.

The classes below are imported, with torch, when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optiscope import lazy

if TYPE_CHECKING:
    from optiscope.optim.lark import Lark as Lark
    from optiscope.optim.preconditioner import AdaptiveSGD as AdaptiveSGD
    from optiscope.optim.preconditioner import OnlyAdaptiveSGD as OnlyAdaptiveSGD
    from optiscope.optim.preconditioner import PreconditionedSGD as PreconditionedSGD
    from optiscope.optim.preconditioner import (
        PreconditionedTunedMomentum as PreconditionedTunedMomentum,
    )
    from optiscope.optim.preconditioner import PreconditionedTunedSGD as PreconditionedTunedSGD
    from optiscope.optim.preconditioner import Preconditioner as Preconditioner

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "lark": ("Lark",),
        "preconditioner": (
            "AdaptiveSGD",
            "OnlyAdaptiveSGD",
            "PreconditionedSGD",
            "PreconditionedTunedMomentum",
            "PreconditionedTunedSGD",
            "Preconditioner",
        ),
    },
)
