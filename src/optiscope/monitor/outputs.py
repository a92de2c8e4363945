"""Tensors among the arguments and in the output of a model, whatever holds them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["main_output", "tensors_in"]


def tensors_in(values: Any, depth: int = 4) -> list[Tensor]:
    """Tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(values, Tensor):
        return [values]
    if depth == 0:
        return []
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [tensor for value in values for tensor in tensors_in(value, depth - 1)]


def main_output(output: Any) -> Tensor | None:
    """The tensor that the loss is made of: ``logits`` of a structured output, else the first."""
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) and isinstance(output, dict):
        logits = output.get("logits")
    if isinstance(logits, Tensor):
        return logits
    candidates = [t for t in tensors_in(output) if t.is_floating_point()]
    with_graph = [t for t in candidates if t.requires_grad and t.ndim > 0]
    best = with_graph or candidates
    return best[0] if best else None
