"""What Lark accepts: settings of a group, and parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_parameter", "check_settings", "check_state"]


_REALS = ("lr", "weight_decay", "power", "momentum", "memory", "growth")
_INTEGERS = ("horizon", "rank", "full_up_to", "gather_every", "renew_every")


def check_settings(group: MutableMapping[str, Any]) -> None:
    """Raise ValueError, one line, where a setting is out of its range; make numbers Python's own.

    Numbers of NumPy would not load again with ``weights_only=True``.
    """
    for name in (*_REALS, *_INTEGERS):
        group[name] = _plain(group[name])
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"lr must be one number, got a tensor of shape {list(lr.shape)}")
    factor = lr.item() if isinstance(lr, Tensor) else lr
    if not (_is_number(factor) and factor >= 0):
        raise ValueError(f"lr must be a finite number >= 0, got {lr!r}: 1.0 is the built-in length")
    for name in ("weight_decay", "growth", "power"):
        if not (_is_number(group[name]) and group[name] >= 0):
            raise ValueError(f"{name} must be a finite number >= 0, got {group[name]!r}")
    if not (_is_number(group["momentum"]) and 0 <= group["momentum"] < 1):
        raise ValueError(f"momentum must be in [0, 1), got {group['momentum']!r}")
    if not (_is_number(group["memory"]) and group["memory"] >= 1):
        raise ValueError(f"memory must be a number of steps >= 1, got {group['memory']!r}")
    for name, lowest in (("rank", 0), ("full_up_to", 0), ("gather_every", 1), ("renew_every", 1)):
        if not _is_integer(group[name]) or group[name] < lowest:
            raise ValueError(f"{name} must be an integer >= {lowest}, got {group[name]!r}")
    horizon = group["horizon"]
    if horizon is not None and (not _is_integer(horizon) or horizon < 1):
        raise ValueError(
            f"horizon must be a positive number of steps or None, got {horizon!r}: "
            "pass epochs * len(loader)"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_state(state_dict: Mapping[str, Any], params: Sequence[Tensor]) -> None:
    """Raise ValueError, one line, where a saved state is not one of Lark on such parameters."""
    groups = state_dict["param_groups"]
    for group in groups:
        missing = [name for name in (*_REALS, *_INTEGERS, "step", "training") if name not in group]
        if missing:
            raise ValueError(
                f"expected the state of a Lark, got a group without {', '.join(missing)}: load "
                "it into the class of optimizer that saved it"
            )
    places = [place for group in groups for place in group["params"]]
    for place, p in zip(places, params, strict=False):  # their numbers are torch's to compare
        kept = state_dict["state"].get(place, {})
        tensor = kept.get("momentum", kept.get("mean"))
        shape = (p.shape[0], p.numel() // p.shape[0]) if p.ndim > 1 and p.numel() else p.shape
        if kept and (tensor is None or tensor.shape != torch.Size(shape)):
            got = "no momentum" if tensor is None else f"momentum of shape {list(tensor.shape)}"
            raise ValueError(
                f"expected momentum of shape {list(shape)} for parameter {place}, got {got}: "
                "build the optimizer over the same parameters in the same order"
            )


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
            "pass view_as_real of a complex one, and leave out what has no gradient"
        )
