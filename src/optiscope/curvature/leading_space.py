"""How long a leading space of the Hessian stays true along a training.

Index legend: N parameters, k pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from optiscope.curvature.conditioning import ConditioningError
from optiscope.curvature.eigenpairs import Eigenpairs, top_eigenpairs
from optiscope.objective.cost import Cost
from optiscope.objective.risk import EmpiricalRisk

__all__ = ["Staleness", "staleness", "subspace_overlap"]


@dataclass(frozen=True)
class Staleness:
    """How well the leading space of the first point still describes later ones.

    Attributes:
        overlaps: mean squared cosine with the leading space at each point, the first being 1.
        captured: share of the Rayleigh quotients' sum, in the first space, of the leading
            eigenvalues' sum at each point.
        values: the k leading eigenvalues at each point.
        converged: whether the eigenpairs at each point are.
        cost: of all.
    """

    overlaps: list[float]
    captured: list[float]
    values: list[Tensor]
    converged: list[bool]
    cost: Cost


def staleness(
    risk: EmpiricalRisk,
    points: Iterable[Tensor | Mapping[str, Tensor]],
    k: int = 10,
    *,
    tol: float = 1e-3,
    seed: int = 0,
) -> Staleness:
    """Leading space of the Hessian at the first of several points, against that at each.

    Args:
        risk: the loss.
        points: parameters along a training, flat or as state dicts.
        k: dimension of the space.
        tol: of the eigenpairs.
        seed: of the starting vectors.
    """
    first: Tensor | None = None
    overlaps, captured, values, converged = [], [], [], []
    cost = Cost()
    for theta in points:
        operator = risk.hessian(theta)
        pairs = top_eigenpairs(operator, k, tol=tol, seed=seed)
        assert pairs.vectors is not None
        first = pairs.vectors if first is None else first
        quotients = sum(float(u @ (operator @ u)) for u in first)
        overlaps.append(subspace_overlap(first, pairs.vectors))
        total = float(pairs.values.sum())
        captured.append(quotients / total if total else math.nan)
        values.append(pairs.values)
        converged.append(bool(pairs.converged.all()))
        cost += pairs.cost + Cost(products=len(first))
    return Staleness(overlaps, captured, values, converged, cost)


def subspace_overlap(a: Eigenpairs | Tensor, b: Eigenpairs | Tensor) -> float:
    """Mean squared cosine between two spaces of equal dimension k: 1 if equal, k/N if random.

    Args:
        a: eigenpairs with vectors, or rows [k, N] that span the space.
        b: as ``a``.

    Raises:
        ConditioningError: the vectors were not kept, or the dimensions differ.
    """
    first, second = (_rows(x) for x in (a, b))
    if first.shape != second.shape:
        raise ConditioningError(
            f"expected two spaces of one dimension, got {list(first.shape)} and "
            f"{list(second.shape)}"
        )
    return float((first @ second.T).square().sum()) / len(first)


def _rows(space: Eigenpairs | Tensor) -> Tensor:
    vectors = space.vectors if isinstance(space, Eigenpairs) else space
    if vectors is None:
        raise ConditioningError("expected eigenpairs with vectors: pass keep_vectors=True")
    basis: Tensor = torch.linalg.qr(vectors.double().T)[0].T
    return basis
