"""Hessian, Gauss-Newton matrix and their difference as products with vectors, graphs kept.

A product by double backward of a graph that was kept costs 1.4 to 2.0 gradients, of a fresh one
2.5 to 3 (torch 2.13, CPU). Graphs are kept batch by batch until a budget of memory is spent; the
batches that remain are evaluated anew for each product.

Index legend: N parameters, B samples in a batch; O outputs of the model for a whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from optiscope.errors import OptiscopeError
from optiscope.objective.batches import ModelBatch
from optiscope.objective.evaluation import twice_differentiable
from optiscope.objective.products import (
    FlatParameters,
    NoSecondDerivativesError,
    graph_product,
)

__all__ = ["BatchLoss", "Kind", "Leaves", "NotFiniteError", "RiskOperator", "SecondDerivativeError"]

Kind = Literal["hessian", "gauss_newton", "residual"]

DEFAULT_GRAPH_MEMORY = 4 * 2**30


class SecondDerivativeError(OptiscopeError, RuntimeError):
    """The loss cannot be differentiated twice."""


class NotFiniteError(OptiscopeError, ValueError):
    """The loss of a batch is not finite where its curvature is asked for."""


@dataclass(frozen=True)
class Leaves:
    """Tensors a model is run with.

    Attributes:
        flat: the parameters that derivatives are taken by; frozen ones need no gradient.
        parameters: every parameter by name, those of ``flat`` among them.
        buffers: every buffer by name.
    """

    flat: FlatParameters
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]


class BatchLoss(Protocol):
    """One batch of a risk at some leaves."""

    @property
    def weight(self) -> float:
        """Share of the batch, before division by the sum over batches."""

    @property
    def batch(self) -> ModelBatch:
        """The samples."""

    def outputs(self) -> Any:
        """What the model returns, with graph."""

    def loss_of(self, outputs: Any) -> Tensor:
        """Mean loss of the batch, a scalar."""


class Risk(Protocol):
    """What an operator needs to know of a risk."""

    loss: Any
    graph_memory: int | None

    @property
    def size(self) -> int:
        """Number of parameters N."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of vectors."""

    @property
    def device(self) -> torch.device:
        """Device of vectors."""

    def leaves(self, point: Any) -> Leaves:
        """Leaves at a point."""

    def passes(self, leaves: Leaves) -> Iterator[BatchLoss]:
        """Batch by batch."""

    def differentiable(self) -> AbstractContextManager[None]:
        """The kernels that have second derivatives."""


class _Graph(Protocol):
    weight: float

    def product(self, v: Tensor) -> Tensor: ...

    def roots(self) -> list[Tensor]: ...


class _DerivativeOfGradient:
    """The Hessian of one batch's loss, or of the loss linearized in the outputs: H v or R v."""

    def __init__(self, each: BatchLoss, leaves: Leaves, *, residual: bool) -> None:
        self.weight, self._flat = each.weight, leaves.flat
        moving = [p for p in leaves.flat.parameters if p.requires_grad]
        outputs = each.outputs()
        if residual:
            tensors, slopes = _slopes(each, outputs)
            grads = _grad(tensors, moving, [s.detach() for s in slopes], create_graph=True)
        else:
            loss = _finite(each.loss_of(outputs))
            if not twice_differentiable(loss):
                raise NoSecondDerivativesError
            grads = _grad([loss], moving, [torch.ones_like(loss)], create_graph=True)
        by_leaf = dict(zip(map(id, moving), grads, strict=True))
        self._gradient = [by_leaf.get(id(p)) for p in leaves.flat.parameters]

    def product(self, v: Tensor) -> Tensor:
        return graph_product(self._gradient, self._flat, v)

    def roots(self) -> list[Tensor]:
        return [g for g in self._gradient if g is not None]


class _GaussNewton:
    """J' L'' J of one batch, all three products by backward passes through graphs kept.

    J v is the derivative by u of <J' u, v>, which needs no forward mode, so that it exists
    for attention and recurrent layers too.
    """

    def __init__(self, each: BatchLoss, leaves: Leaves) -> None:
        self.weight, self._flat = each.weight, leaves.flat
        self._moving = [p for p in leaves.flat.parameters if p.requires_grad]
        outputs, spec = tree_flatten(each.outputs())
        self._outputs = [o for o in outputs if isinstance(o, Tensor) and o.requires_grad]
        detached = [
            o.detach().requires_grad_() if isinstance(o, Tensor) and o.requires_grad else o
            for o in outputs
        ]
        self._inputs = [
            d for d, o in zip(detached, outputs, strict=True) if any(o is k for k in self._outputs)
        ]
        loss = _finite(each.loss_of(tree_unflatten(detached, spec)))
        if not twice_differentiable(loss):
            raise NoSecondDerivativesError
        self._slopes = _grad([loss], self._inputs, [torch.ones_like(loss)], create_graph=True)
        self._duals = [torch.zeros_like(o, requires_grad=True) for o in self._outputs]
        self._pulled = _grad(self._outputs, self._moving, self._duals, create_graph=True)

    def product(self, v: Tensor) -> Tensor:
        by_leaf = dict(zip(map(id, self._flat.parameters), self._flat.split(v), strict=True))
        pairs = [
            (pulled, by_leaf[id(p)].to(pulled.dtype))
            for pulled, p in zip(self._pulled, self._moving, strict=True)
            if pulled is not None and pulled.requires_grad
        ]
        curved = [(s, i) for s, i in enumerate(self._slopes) if i is not None and i.requires_grad]
        if not pairs or not curved:
            return torch.zeros_like(v)
        pushed = _grad([p for p, _ in pairs], self._duals, [piece for _, piece in pairs])
        bent = _grad(
            [slope for _, slope in curved],
            self._inputs,
            [_or_zeros(pushed[s], self._inputs[s]) for s, _ in curved],
        )
        directions = [_or_zeros(b, o) for b, o in zip(bent, self._outputs, strict=True)]
        pulled_back = _grad(self._outputs, self._moving, directions)
        products = dict(zip(map(id, self._moving), pulled_back, strict=True))
        return self._flat.join([products.get(id(p)) for p in self._flat.parameters])

    def roots(self) -> list[Tensor]:
        roots = [*self._pulled, *self._slopes, *self._outputs]
        return [t for t in roots if t is not None]


def _slopes(each: BatchLoss, outputs: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs that depend on the parameters, and the loss's gradient by them."""
    flat, spec = tree_flatten(outputs)
    moving = [o for o in flat if isinstance(o, Tensor) and o.requires_grad]
    detached = [
        o.detach().requires_grad_() if isinstance(o, Tensor) and o.requires_grad else o
        for o in flat
    ]
    inputs = [d for d in detached if isinstance(d, Tensor) and d.requires_grad]
    loss = _finite(each.loss_of(tree_unflatten(detached, spec)))
    slopes = _grad([loss], inputs, [torch.ones_like(loss)])
    return moving, [_or_zeros(s, o) for s, o in zip(slopes, moving, strict=True)]


def _finite(loss: Tensor) -> Tensor:
    """The loss itself; products at a loss that is not finite may be finite, and mean nothing."""
    if not bool(loss.detach().isfinite().all()):
        raise NotFiniteError(
            f"expected a finite loss to take the curvature of, got {float(loss.detach()):g}: has "
            "training diverged?"
        )
    return loss


def _or_zeros(tensor: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if tensor is None else tensor


def _grad(
    outputs: list[Tensor],
    inputs: list[Tensor],
    directions: list[Tensor],
    *,
    create_graph: bool = False,
) -> list[Tensor | None]:
    """Vector-Jacobian product; None where an input does not matter; graphs stay."""
    pairs = [(o, d) for o, d in zip(outputs, directions, strict=True) if o.requires_grad]
    if not pairs or not inputs:
        return [None] * len(inputs)
    return list(
        torch.autograd.grad(
            [o for o, _ in pairs],
            inputs,
            [d for _, d in pairs],
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
        )
    )


def graph_bytes(roots: list[Tensor], known: set[int]) -> int:
    """Bytes that the graphs of ``roots`` hold in tensors whose storages are not in ``known``.

    ``known`` is extended by the storages counted.
    """
    total = 0
    seen: set[Any] = set()
    waiting: list[Any] = [root.grad_fn for root in roots]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        for tensor in _saved(node):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                total += storage.nbytes()
    return total


def _saved(node: Any) -> Iterator[Tensor]:
    for name in dir(node):
        if name.startswith("_saved_") or name == "saved_tensors":
            try:
                value = getattr(node, name)
            except (RuntimeError, AttributeError):
                continue
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(item, Tensor) and item.layout == torch.strided:
                    yield item


def _default_memory() -> int:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(DEFAULT_GRAPH_MEMORY, physical // 4)


class RiskOperator:
    """A symmetric matrix [N, N] of a risk at fixed parameters, known by its products.

    Attributes:
        risk: where it comes from.
        kind: ``hessian``, ``gauss_newton`` or ``residual`` (their difference).
        products: products computed so far.
        builds: evaluations of all graphs so far; each costs about 1.3 gradients.
    """

    def __init__(self, risk: Risk, kind: Kind, point: Any) -> None:
        if kind != "hessian" and risk.loss is None:
            raise SecondDerivativeError(
                f"{kind} needs the model's outputs and the loss apart, got a model that returns "
                "its own loss: pass loss(outputs, targets)"
            )
        self.risk: Any = risk
        self.kind: Kind = kind
        self.point = point
        self.products = 0
        self.builds = 0.0
        self._risk = risk
        self._leaves: Leaves = risk.leaves(point)
        self._graphs: dict[int, _Graph] = {}
        self._count: int | None = None
        self._memory = risk.graph_memory if risk.graph_memory is not None else _default_memory()
        self._storages: set[int] = set()

    @property
    def size(self) -> int:
        """Number of rows N."""
        return self._leaves.flat.size

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        return self.size, self.size

    @property
    def dtype(self) -> torch.dtype:
        """Type of the vectors it multiplies."""
        return self._leaves.flat.dtype

    @property
    def device(self) -> torch.device:
        """Device of the vectors it multiplies."""
        return self._leaves.flat.device

    def __matmul__(self, v: Tensor) -> Tensor:
        """Product with ``v`` [N], or with each column of ``v`` [N, M]."""
        if v.ndim == 2:
            return torch.stack([self @ column for column in v.T], dim=1)
        total, weights = torch.zeros(self.size, dtype=self.dtype, device=self.device), 0.0
        for weight, product in self.batch_products(v):
            total.add_(product, alpha=weight)
            weights += weight
        return total.div_(weights)

    def batch_products(self, v: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Weight and product of each batch; together they are one product with ``v`` [N].

        Raises:
            ValueError: ``v`` has another size.
            SecondDerivativeError: the loss cannot be differentiated twice.
        """
        if v.shape != (self.size,):
            raise ValueError(f"expected a vector [{self.size}], got shape {list(v.shape)}")
        v = v.to(self.device, self.dtype)
        self.products += 1
        for graph in self._each_graph():
            with self._refusing(), torch.inference_mode(False):
                product = graph.product(v)
            yield graph.weight, product

    def grouped_products(self, v: Tensor, groups: int) -> Iterator[tuple[float, Tensor]]:
        """Share and mean product of up to ``groups`` runs of batches; the shares sum to 1."""
        count, total = self.risk.batch_count, self.risk.weight
        done = 0
        share, mean = 0.0, torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for index, (weight, product) in enumerate(self.batch_products(v), start=1):
            mean.add_(product, alpha=weight)
            share += weight
            if index * groups // count > done or index == count:
                done = index * groups // count
                yield share / total, mean.div_(share)
                share, mean = 0.0, torch.zeros_like(mean)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Errors of what has no second derivatives, in words."""
        try:
            yield
        except (NoSecondDerivativesError, NotImplementedError, RuntimeError) as error:
            if type(error) is RuntimeError and "is not implemented" not in str(error):
                raise
            raise SecondDerivativeError(
                "the loss cannot be differentiated twice (compiled, fused or once-differentiable "
                f"kernels: {str(error.__cause__ or error)[:80]}): use plain kernels"
            ) from error

    def _each_graph(self) -> Iterator[_Graph]:
        """The graph of each batch, kept or made anew."""
        if self._count is not None and len(self._graphs) == self._count:
            yield from list(self._graphs.values())
            return
        count, fresh = 0, 0
        for index, each in enumerate(self._risk.passes(self._leaves)):
            count += 1
            if index in self._graphs:
                yield self._graphs[index]
                continue
            fresh += 1
            with self._refusing(), self._risk.differentiable():
                graph: _Graph = self._graph(each)
            if self._memory > 0:
                self._memory -= graph_bytes(graph.roots(), self._storages)
                if self._memory >= 0:
                    self._graphs[index] = graph
            yield graph
            del graph
        self.builds += fresh / count
        self._count = count

    def _graph(self, each: BatchLoss) -> _Graph:
        with torch.enable_grad():
            if self.kind == "gauss_newton":
                return _GaussNewton(each, self._leaves)
            return _DerivativeOfGradient(each, self._leaves, residual=self.kind == "residual")

    def release(self) -> None:
        """Free all graphs; the next product makes them anew."""
        self._graphs.clear()
        self._storages.clear()
        self._count = None
        memory = self._risk.graph_memory
        self._memory = memory if memory is not None else _default_memory()

    def __repr__(self) -> str:
        return f"RiskOperator({self.kind}, size={self.size}, products={self.products})"
