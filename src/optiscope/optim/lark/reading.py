"""How Lark reads a weight of any number of dimensions: as a vector, a matrix, or a stack of them.

A weight with at most one dimension above one is a vector, but for two-dimensional ones, which are
matrices as they stand. Of three dimensions and more:

- four and more are a kernel, its outputs (the first dimension) by all the rest: a convolution, a
  patch embedding. Where the first dimension is one it is a kernel only with a window (the last two
  dimensions) of at most eleven by eleven; else the ones are dropped and what is left is read anew,
  such as position tables (1, heads, N, N);
- three, once ones are dropped, such as position embeddings (1, N, D), which then are matrices: a
  kernel of one-dimensional convolution, outputs by the rest, where the last dimension is at most
  eleven; else a stack of matrices (experts, heads), each with factors and a length of its own.

What this gets wrong is said by the group's ``read_as``: ``"kernel"`` (first dimension by the rest)
or ``"stack"`` (of the matrices in the last two dimensions).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import nn

__all__ = ["READINGS", "groups_of", "matrix_shape"]

READINGS = ("auto", "kernel", "stack")
_MAX_WINDOW = 11  # entries across a convolution's window


def matrix_shape(shape: Sequence[int], read_as: str = "auto") -> tuple[int, ...]:
    """Shape in which a weight is treated: () for vectors, (M, N), or (S, M, N) for a stack of S."""
    return _matrix_shape(tuple(shape), read_as)


@lru_cache(maxsize=4096)
def _matrix_shape(shape: tuple[int, ...], read_as: str) -> tuple[int, ...]:
    if len(shape) < 2 or 0 in shape:
        return ()
    if len(shape) == 2:
        return shape
    wide = tuple(size for size in shape if size > 1)
    if read_as == "stack":
        return _stack(shape)
    if len(wide) < 2:
        return ()
    if read_as == "kernel":
        return _kernel(shape)
    if len(shape) > 3 and (shape[0] > 1 or max(shape[-2:]) <= _MAX_WINDOW):
        return _kernel(shape)
    if len(wide) == 2:
        return wide
    if len(wide) > 3 or wide[-1] <= _MAX_WINDOW:
        return _kernel(wide)
    return _stack(wide)


def _kernel(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[0], math.prod(shape[1:])


def _stack(shape: tuple[int, ...]) -> tuple[int, ...]:
    count = math.prod(shape[:-2])
    return shape[-2:] if count == 1 else (count, *shape[-2:])


def groups_of(model: nn.Module) -> list[dict[str, Any]]:
    """Groups of a model's named parameters: kernels that their shape does not tell stand apart."""
    odd = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.modules.conv._ConvNd)
        and matrix_shape(module.weight.shape) != _kernel(tuple(module.weight.shape))
        and module.weight.squeeze().ndim > 1
    }
    named = list(model.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [(name, p) for name, p in named if id(p) not in odd]},
        {"params": [(name, p) for name, p in named if id(p) in odd], "read_as": "kernel"},
    ]
    return [group for group in groups if group["params"]] or groups[:1]
