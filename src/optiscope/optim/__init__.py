"""Curvature-aware optimizers, and the pure mathematics under them.

The classes below are imported, with torch, when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optiscope.optim.lark import Lark
    from optiscope.optim.preconditioned_sgd import (
        AdaptiveSGD,
        OnlyAdaptiveSGD,
        PreconditionedSGD,
        PreconditionedTunedMomentum,
        PreconditionedTunedSGD,
    )
    from optiscope.optim.preconditioner import Preconditioner

_HOMES = {
    "AdaptiveSGD": "preconditioned_sgd",
    "Lark": "lark",
    "OnlyAdaptiveSGD": "preconditioned_sgd",
    "PreconditionedSGD": "preconditioned_sgd",
    "PreconditionedTunedMomentum": "preconditioned_sgd",
    "PreconditionedTunedSGD": "preconditioned_sgd",
    "Preconditioner": "preconditioner",
}

__all__ = [
    "AdaptiveSGD",
    "Lark",
    "OnlyAdaptiveSGD",
    "PreconditionedSGD",
    "PreconditionedTunedMomentum",
    "PreconditionedTunedSGD",
    "Preconditioner",
]


def __getattr__(name: str) -> Any:
    """The classes in ``__all__``."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
