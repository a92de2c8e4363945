"""What Lark believes of one layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

__all__ = ["LayerLog", "describe_layers"]


@dataclass(frozen=True)
class LayerLog:
    """What Lark believes of one layer.

    Attributes:
        name: the parameter's name where the optimizer was given names, else its place in order.
        shape: of the parameter.
        left_values: leading eigenvalues of E[G G'], descending.
        right_values: leading eigenvalues of E[G' G], descending.
        left_rank: directions that f(L) treats otherwise than the rest.
        right_rank: the same of f(R).
        left_share: share of the second moment in the kept directions on the left; NaN before the
            first gradient.
        right_share: the same on the right.
        length: of the next step, in units of an orthogonal matrix's step, before annealing and lr.
        age: gradients seen since the factors were renewed.
    """

    name: str
    shape: tuple[int, ...]
    left_values: tuple[float, ...]
    right_values: tuple[float, ...]
    left_rank: int
    right_rank: int
    left_share: float
    right_share: float
    length: float
    age: int


def describe_layers(
    name: str, shape: tuple[int, ...], state: Mapping[str, Tensor], age: int
) -> list[LayerLog]:
    """Log of a layer from its state, see ``matrix_step.LayerState``; of a stack, each matrix's."""
    if not state["trace"].ndim:
        return [_describe_layer(name, shape, state, age)]
    count = len(state["trace"])
    single = [{key: v[i] for key, v in state.items() if v.ndim} for i in range(count)]
    return [_describe_layer(f"{name}[{i}]", shape, single[i], age) for i in range(count)]


def _describe_layer(
    name: str, shape: tuple[int, ...], state: Mapping[str, Tensor], age: int
) -> LayerLog:
    trace = float(state["trace"])
    held = [float((state[side] * state[f"{side}_image"]).sum()) for side in ("left", "right")]
    shares = [value / trace if trace > 0 else math.nan for value in held]
    return LayerLog(
        name=name,
        shape=shape,
        left_values=tuple(state["left_values"].tolist()),
        right_values=tuple(state["right_values"].tolist()),
        left_rank=int((state["left_gains"] != 0).sum()),
        right_rank=int((state["right_gains"] != 0).sum()),
        left_share=shares[0],
        right_share=shares[1],
        length=float(state["log_length"].exp()),
        age=age,
    )
