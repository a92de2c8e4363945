"""``torch.func.functional_call`` that also leaves models as they were which repeat a module.

Where one module object stands at several places, torch swaps the values in at each of them, takes
the second place's old value to be the first one's new, and leaves that in the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["functional_call"]


def functional_call(
    model: nn.Module,
    values: Mapping[str, Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """What ``model(*args, **kwargs)`` returns with ``values`` [by name] for its tensors.

    A tensor that several modules share gets its value in all of them.
    """
    names: dict[int, list[str]] = {}
    for prefix, module in model.named_modules():  # every module object once
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if isinstance(tensor, Tensor):
                names.setdefault(id(tensor), []).append(f"{prefix}.{name}".lstrip("."))
    own = {name: same for same in names.values() for name in same}
    whole = {same: value for name, value in values.items() for same in own.get(name, [name])}
    return torch.func.functional_call(model, whole, args, dict(kwargs or {}), tie_weights=False)
