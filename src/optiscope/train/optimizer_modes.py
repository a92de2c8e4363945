"""Optimizers that train and evaluate at different weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.optim import Optimizer

__all__ = ["evaluation_mode", "has_modes"]


def has_modes(optimizer: Optimizer) -> bool:
    """Whether it trains and evaluates at different weights (schedule-free methods)."""
    return all(callable(getattr(optimizer, name, None)) for name in ("eval", "train"))


@contextmanager
def evaluation_mode(optimizer: Optimizer) -> Iterator[None]:
    """Call the optimizer's ``eval()`` and ``train()`` where it has them."""
    if not has_modes(optimizer):
        yield
        return
    optimizer.eval()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        optimizer.train()  # type: ignore[attr-defined]
