"""What curvature is measured of: any symmetric linear map, known by its products.

Index legend: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from optiscope.errors import OptiscopeError
from optiscope.objective.cost import Cost

__all__ = [
    "GROUPS",
    "LinearMap",
    "Matrix",
    "OperatorError",
    "as_linear_map",
    "cost_of",
    "groups_of",
]

GROUPS = 16  # runs of batches whose spread gives the error from the data


class OperatorError(OptiscopeError, ValueError):
    """What was given is no symmetric linear map."""


@runtime_checkable
class LinearMap(Protocol):
    """A symmetric matrix [N, N] known by its products."""

    @property
    def size(self) -> int:
        """Number of rows N."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the vectors."""

    @property
    def device(self) -> torch.device:
        """Device of the vectors."""

    def __matmul__(self, v: Tensor) -> Tensor: ...


class Matrix:
    """A symmetric matrix given as a tensor, or as a function with a size."""

    def __init__(
        self,
        product: Callable[[Tensor], Tensor],
        size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._product = product
        self.size, self.dtype, self.device = size, dtype, device
        self.products = 0

    def __matmul__(self, v: Tensor) -> Tensor:
        if v.ndim == 2:
            return torch.stack([self @ column for column in v.T], dim=1)
        self.products += 1
        return self._product(v).to(self.device, self.dtype)


def as_linear_map(
    operator: Any,
    size: int | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> LinearMap:
    """A symmetric linear map of an operator, a tensor [N, N], or a function v -> A v with a size.

    Raises:
        OperatorError: it is none of these, or not square and symmetric.
    """
    if isinstance(operator, Tensor):
        if operator.ndim != 2 or operator.shape[0] != operator.shape[1]:
            raise OperatorError(f"expected a square matrix, got shape {list(operator.shape)}")
        gap = float((operator - operator.T).abs().max())
        if gap > 1e-3 * float(operator.abs().max()):
            raise OperatorError("expected a symmetric matrix, got one that is not")
        matrix = operator
        return Matrix(lambda v: matrix @ v, len(operator), operator.dtype, operator.device)
    if isinstance(operator, LinearMap):
        return operator
    own = size if size is not None else getattr(operator, "size", None)
    shape = getattr(operator, "shape", None)
    if own is None and isinstance(shape, (tuple, list, torch.Size)) and len(shape) == 2:
        own = int(shape[0])
    if not isinstance(own, int):
        raise OperatorError(
            f"expected an operator, a matrix, or a function with a size, got "
            f"{type(operator).__name__}: use risk.hessian(), or pass size=N"
        )
    if callable(operator):
        return Matrix(operator, own, dtype, torch.device(device))
    if hasattr(operator, "__matmul__"):
        return Matrix(lambda v: torch.as_tensor(operator @ v), own, dtype, torch.device(device))
    raise OperatorError(
        f"expected an operator that multiplies vectors (A @ v), got {type(operator).__name__}"
    )


def groups_of(operator: LinearMap) -> Callable[[Tensor], Iterator[tuple[float, Tensor]]]:
    """Products by groups of samples, where the map is a risk's, else of the whole alone."""
    grouped = getattr(operator, "grouped_products", None)
    if grouped is None:
        return lambda v: iter([(1.0, operator @ v)])
    return lambda v: grouped(v, GROUPS)


def cost_of(operator: LinearMap, products: int, builds: float, seconds: float) -> Cost:
    """What some products cost, graphs included that were made since there were ``builds``."""
    made = float(getattr(operator, "builds", 0.0)) - builds
    return Cost(gradients=made, products=products, seconds=seconds)
