"""What the autograd graph behind a tensor says: its leaves and the activations saved in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["SavedActivation", "graph_leaves", "last_operation", "saved_activations", "walk"]

MAX_NODES = 20_000

ACTIVATIONS = {
    "ReluBackward0": "relu",
    "TanhBackward0": "tanh",
    "SigmoidBackward0": "sigmoid",
    "GeluBackward0": "gelu",
    "LeakyReluBackward0": "leaky_relu",
    "SiluBackward0": "silu",
    "HardtanhBackward0": "hardtanh",
}
PASSED_OVER = ("ViewBackward0", "ReshapeAliasBackward0", "UnsafeViewBackward0", "SqueezeBackward1",
               "SqueezeBackward0", "CloneBackward0", "ToCopyBackward0", "AliasBackward0",
               "UnsqueezeBackward0", "TransposeBackward0", "PermuteBackward0")  # fmt: skip


@dataclass(frozen=True)
class SavedActivation:
    """An activation that the graph keeps for its backward pass.

    ``values`` is the output for relu, tanh and sigmoid, the input for the others; ``parameter`` is
    the weight nearest before it (None if there is none).
    """

    kind: str
    values: Tensor
    parameter: Tensor | None


def walk(output: Tensor) -> list[Any]:
    """Nodes of the graph behind ``output``, each once, from the output backwards."""
    if output.grad_fn is None:
        return []
    seen = {output.grad_fn}
    queue: list[Any] = [output.grad_fn]
    position = 0
    while position < len(queue) and len(queue) < MAX_NODES:
        for node, _ in queue[position].next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                queue.append(node)
        position += 1
    return queue


def graph_leaves(nodes: list[Any]) -> list[Tensor]:
    """Leaf tensors that a backward pass through ``nodes`` would reach."""
    return [node.variable for node in nodes if hasattr(node, "variable")]


def last_operation(output: Tensor) -> Any:
    """The node that made ``output``, views and copies passed over; None without a graph."""
    node: Any = output.grad_fn
    while node is not None and node.name() in PASSED_OVER:
        node = node.next_functions[0][0] if node.next_functions else None
    return node


def saved_activations(nodes: list[Any]) -> list[SavedActivation]:
    """Activations in ``nodes`` in the order of the forward pass."""
    kept = []
    for node in reversed(nodes):
        kind = ACTIVATIONS.get(node.name())
        if kind is None:
            continue
        name = "_saved_result" if kind in ("relu", "tanh", "sigmoid") else "_saved_self"
        try:
            values = getattr(node, name)
        except (RuntimeError, AttributeError):  # freed by a backward pass
            continue
        if isinstance(values, Tensor):
            kept.append(SavedActivation(kind, values.detach(), _nearest_weight(node)))
    return kept


def _nearest_weight(node: Any, depth: int = 8) -> Tensor | None:
    """The leaf of two or more dimensions nearest behind ``node``."""
    level = [node]
    for _ in range(depth):
        level = [child for parent in level for child, _ in parent.next_functions if child]
        for child in level:
            leaf = getattr(child, "variable", None)
            if isinstance(leaf, torch.nn.Parameter) and leaf.ndim > 1:
                return leaf
        if not level or len(level) > 64:
            return None
    return None
