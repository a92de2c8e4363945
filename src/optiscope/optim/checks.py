"""Checks of an optimizer's arguments, with errors that say what was expected; warnings."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from torch import Tensor

__all__ = [
    "check_count",
    "check_flag",
    "check_number",
    "end_if_hopeless",
    "moves_nothing",
    "refuse_ascent",
    "refuse_flat",
    "refuse_sharded",
    "warn_caller",
]

_HOPELESS = 10  # non-finite batches in a row after which training has failed

_LIBRARIES = ("torch.", "optiscope.")  # modules that are not the user's own


def check_count(name: str, value: Any, least: int) -> int:
    """``value`` if it is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def check_flag(name: str, value: Any) -> bool:
    """``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value


def check_number(name: str, value: Any, positive: bool = False) -> float:
    """``value`` if it is finite and not negative, nor zero where it must be positive."""
    good = isinstance(value, Real) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value < 0 or (positive and value == 0):
        kind = "positive" if positive else "non-negative"
        raise ValueError(f"{name} must be a {kind} finite number, got {value!r}")
    return float(value)


def refuse_ascent(settings: Mapping[str, Any]) -> None:
    """Raise ValueError where settings or a group say ``maximize``."""
    if settings.get("maximize"):
        raise ValueError("maximize=True has no meaning here: negate the loss")


def refuse_sharded(optimizer: str, parameters: Iterable[Tensor]) -> None:
    """Raise TypeError, one line, where a parameter is a shard: a DTensor, or flat with others."""
    for p in parameters:
        refuse_flat(optimizer, p)
        if hasattr(p, "device_mesh"):
            raise TypeError(_needs_whole(optimizer, "a sharded one (DTensor)"))


def refuse_flat(optimizer: str, p: Tensor) -> None:
    """Raise TypeError, one line, where a parameter is flat with others."""
    if getattr(p, "_is_flat_param", False) or getattr(p, "_fsdp_flattened", False):
        raise TypeError(_needs_whole(optimizer, "a flat shard of several"))


def _needs_whole(optimizer: str, kind: str) -> str:
    return (
        f"expected whole parameters, got {kind}: {optimizer} needs whole gradients; use "
        "DistributedDataParallel instead of fully_shard or FullyShardedDataParallel"
    )


def moves_nothing(groups: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a step could change nothing: every rate is zero, and so is every gradient.

    By such a step torch's distributed checkpoint functions ask a fresh optimizer for its state.
    """
    groups = list(groups)
    if any(float(group["lr"]) for group in groups):
        return False
    held = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    return not any(bool(g.any()) for g in held)


def end_if_hopeless(skipped_in_row: int) -> None:
    """Raise FloatingPointError once as many batches in a row were left out as end a training."""
    if skipped_in_row >= _HOPELESS:
        raise FloatingPointError(
            f"{_HOPELESS} batches in a row gave non-finite gradients: look at the data, the "
            "loss and the weights; no rate can help"
        )


def warn_caller(message: str, category: type[Warning] = RuntimeWarning) -> None:
    """A warning that points at the line that called torch or this package."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_LIBRARIES):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
