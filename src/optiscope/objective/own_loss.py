"""The loss that a model computes itself, read from what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["loss_among", "named_loss"]


def named_loss(outputs: Any) -> Tensor | None:
    """``outputs["loss"]`` or ``outputs.loss``, where it is a tensor."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    return loss if isinstance(loss, Tensor) else None


def loss_among(outputs: Any) -> Tensor | None:
    """:func:`named_loss`, the first of a tuple or list, or the one number that a model returned.

    None where there is no such tensor.
    """
    loss: object = named_loss(outputs)
    if loss is None and isinstance(outputs, tuple | list) and outputs:
        loss = outputs[0]
    elif isinstance(outputs, Tensor) and outputs.numel() == 1:
        loss = outputs
    return loss if isinstance(loss, Tensor) else None
