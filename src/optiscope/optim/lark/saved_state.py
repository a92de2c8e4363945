"""Saved states of Lark: whether one fits the parameters, and its tensors in their precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optiscope.optim.lark.reading import matrix_shape
from optiscope.optim.lark.settings import missing_settings, read_settings

__all__ = ["check_state", "restored_states"]


def check_state(state_dict: Mapping[str, Any], params: Sequence[Tensor]) -> None:
    """Raise ValueError, one line, where a saved state is not one of Lark on such parameters.

    Its settings are checked too, so that a refused state leaves no trace.
    """
    groups = state_dict["param_groups"]
    for group in groups:
        missing = missing_settings(group)
        missing += [name for name in ("step", "training") if name not in group]
        if missing:
            raise ValueError(
                f"expected the state of a Lark, got a group without {', '.join(missing)}: load "
                "it into the class of optimizer that saved it"
            )
        read_settings(group)
    places = [(place, group) for group in groups for place in group["params"]]
    for (place, group), p in zip(places, params, strict=False):  # their numbers are torch's
        state = state_dict["state"].get(place, {})
        tensor = state.get("momentum", state.get("mean"))
        shape = matrix_shape(p.shape, group.get("read_as", "auto")) or tuple(p.shape)
        if state and (tensor is None or tensor.shape != torch.Size(shape)):
            got = "no momentum" if tensor is None else f"momentum of shape {list(tensor.shape)}"
            raise ValueError(
                f"expected momentum of shape {list(shape)} for parameter {place}, got {got}: "
                "build the optimizer over the same parameters in the same order"
            )


def restored_states(
    state_dict: Mapping[str, Any], params: Sequence[Tensor]
) -> dict[Tensor, dict[str, Tensor]]:
    """The saved tensors of each parameter that has some, in float32 at least.

    torch's own loading would take them to the parameter's precision.
    """
    groups = state_dict["param_groups"]
    places = [place for group in groups for place in group["params"]]
    steps = [group["step"] for group in groups for _ in group["params"]]
    states = {}
    for place, p, step in zip(places, params, steps, strict=True):
        if place not in state_dict["state"]:
            continue
        dtype = torch.promote_types(p.dtype, torch.float32)
        states[p] = {
            name: value.detach().to("cpu", copy=True)
            if name == "step"
            else value.detach().to(p.device, dtype, copy=True)
            for name, value in state_dict["state"][place].items()
        }
        if "momentum" in states[p]:  # once a layer followed its group's clock
            states[p].setdefault("step", torch.tensor(float(step), device="cpu"))
    return states
