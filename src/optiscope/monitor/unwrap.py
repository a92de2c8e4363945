"""The model and the optimizer inside of the wrappers of other libraries."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

__all__ = ["unwrap_model", "unwrap_optimizer"]


WRAPPERS = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


def unwrap_model(model: nn.Module) -> nn.Module:
    """The module inside of DistributedDataParallel, torch.compile and their like."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            inner = model.module if type(model).__name__ in WRAPPERS else None
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def unwrap_optimizer(optimizer: Any) -> Optimizer:
    """The torch optimizer inside of Accelerate's and Lightning's wrappers.

    Raises ``TypeError`` where there is none.
    """
    inner = optimizer
    for _ in range(5):
        if isinstance(inner, Optimizer) and hasattr(inner, "_optimizer_step_post_hooks"):
            return inner
        inner = getattr(inner, "optimizer", None) or getattr(inner, "_optimizer", None)
    raise TypeError(
        f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}: "
        "pass the optimizer itself"
    )
