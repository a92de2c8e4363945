"""What Lark accepts: settings of a group, and parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_parameter", "check_settings"]


def check_settings(group: Mapping[str, Any]) -> None:
    """Raise ValueError, one line, where a setting is out of its range."""
    lr = group["lr"]
    if not isinstance(lr, Tensor) and not (_is_number(lr) and lr >= 0):
        raise ValueError(f"lr must be a finite number >= 0, got {lr!r}: 1.0 is the built-in length")
    for name in ("weight_decay", "growth", "power"):
        if not (_is_number(group[name]) and group[name] >= 0):
            raise ValueError(f"{name} must be a finite number >= 0, got {group[name]!r}")
    if not (_is_number(group["momentum"]) and 0 <= group["momentum"] < 1):
        raise ValueError(f"momentum must be in [0, 1), got {group['momentum']!r}")
    if not (_is_number(group["memory"]) and group["memory"] >= 1):
        raise ValueError(f"memory must be a number of steps >= 1, got {group['memory']!r}")
    for name, lowest in (("rank", 0), ("gather_every", 1), ("renew_every", 1)):
        if not isinstance(group[name], int) or group[name] < lowest:
            raise ValueError(f"{name} must be an integer >= {lowest}, got {group[name]!r}")
    horizon = group["horizon"]
    if horizon is not None and (not isinstance(horizon, int) or horizon < 1):
        raise ValueError(
            f"horizon must be a positive number of steps or None, got {horizon!r}: "
            "pass epochs * len(loader)"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def check_parameter(parameter: Tensor) -> None:
    """Raise TypeError, one line, where a parameter is sharded or not real."""
    if hasattr(parameter, "device_mesh"):
        raise TypeError(
            "expected whole parameters, got a sharded one (DTensor): Lark's factors need a "
            "layer's whole gradient; use DistributedDataParallel instead of fully_shard"
        )
    if not torch.is_floating_point(parameter):
        raise TypeError(
            f"expected real floating-point parameters, got {parameter.dtype}: "
            "pass view_as_real of a complex one"
        )
