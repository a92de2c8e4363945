"""What an optimizer says of itself, as numbers for the record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

__all__ = ["optimizer_log"]


def optimizer_log(optimizer: Optimizer) -> dict[str, float]:
    """Learning rate of each group, and the numbers in ``get_log()`` where there is one.

    ``get_log()`` may return a mapping, or one dataclass per layer with a ``name``: its numbers
    appear as ``field.name``, and of a sequence of numbers (eigenvalues, say) the first.
    """
    values: dict[str, float] = {}
    for i, group in enumerate(optimizer.param_groups):
        name = "lr" if len(optimizer.param_groups) == 1 else f"lr_{group.get('name', i)}"
        if isinstance(group.get("lr"), int | float | Tensor):
            values[name] = float(group["lr"])
    get_log = getattr(optimizer, "get_log", None)
    if not callable(get_log):
        return values
    log = get_log()
    if isinstance(log, Mapping):
        values.update((k, v) for k, v in _numbers(log) if k != "lr")
    elif isinstance(log, Iterable):
        for layer in log:
            if is_dataclass(layer) and not isinstance(layer, type):
                fields = asdict(layer)
                name = str(fields.pop("name", len(values)))
                values.update((f"{k}.{name}", v) for k, v in _numbers(fields) if k != "shape")
    return values


def _numbers(fields: Mapping[Any, Any]) -> Iterable[tuple[str, float]]:
    for key, value in fields.items():
        first = value[0] if isinstance(value, tuple | list) and value else value
        if isinstance(first, int | float):
            yield str(key), float(first)
