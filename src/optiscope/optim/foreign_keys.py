"""Settings that torch's optimizers know and one of ours does not: refused, never ignored.

A group of parameters may hold any keys (a scheduler's ``initial_lr``, a user's ``name``). But one
by which torch's optimizers would act, such as ``maximize``, must not be without effect.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from optiscope.errors import shorten

__all__ = ["refuse_foreign_keys"]

_NEGATE = "negate the loss"
_LEAVE_OUT = "leave it out"
_NO_KERNEL = "there is no such kernel; leave it out"

# Values that ask for nothing, and what to do instead of any other.
_KNOWN: dict[str, tuple[tuple[Any, ...], str]] = {
    "maximize": ((None, False), _NEGATE),
    "foreach": ((None, False, True), _LEAVE_OUT),  # says how to compute the same, not what
    "fused": ((None, False), _NO_KERNEL),
    "capturable": ((None, False), "its step cannot be captured in a CUDA graph; " + _LEAVE_OUT),
    "differentiable": ((None, False), "its step cannot be differentiated; " + _LEAVE_OUT),
    "nesterov": ((None, False), _LEAVE_OUT),
    "amsgrad": ((None, False), _LEAVE_OUT),
    "centered": ((None, False), _LEAVE_OUT),
    "momentum": ((None, 0), _LEAVE_OUT),
    "dampening": ((None, 0), _LEAVE_OUT),
    "weight_decay": ((None, 0), "add the penalty to the loss"),
    "decoupled_weight_decay": ((None,), _LEAVE_OUT),
    **dict.fromkeys(
        (
            "adjust_lr_fn",
            "alpha",
            "beta2_decay",
            "betas",
            "d",
            "eps",
            "etas",
            "history_size",
            "initial_accumulator_value",
            "lambd",
            "line_search_fn",
            "lr_decay",
            "max_eval",
            "max_iter",
            "momentum_decay",
            "ns_coefficients",
            "ns_steps",
            "rho",
            "step_sizes",
            "t0",
            "tolerance_change",
            "tolerance_grad",
        ),
        ((None,), _LEAVE_OUT),
    ),
}


def refuse_foreign_keys(
    optimizer: str,
    group: Mapping[str, Any],
    own: Collection[str],
    advice: Mapping[str, tuple[tuple[Any, ...], str]] | None = None,
) -> None:
    """Raise ValueError, one line, where a group asks for what the optimizer does not do.

    Args:
        optimizer: its name.
        group: of parameters, as a user may have written or changed it.
        own: keys that the optimizer honors.
        advice: for some other keys the values that ask for nothing, and what to do instead.
    """
    for key in group:
        if key in own or key not in _KNOWN:
            continue
        neutral, remedy = (advice or {}).get(key, _KNOWN[key])
        value = group[key]
        if isinstance(value, Tensor) or not any(
            value is allowed or (type(value) is not bool and value == allowed)
            for allowed in neutral
        ):
            raise ValueError(f"{optimizer} has no {key}, got {key}={shorten(value, 40)}: {remedy}")
