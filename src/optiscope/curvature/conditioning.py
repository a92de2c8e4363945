"""How much a preconditioner helps: the ends of the spectrum of A, and of P^-1 A."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optiscope.curvature.eigenpairs import top_eigenpairs
from optiscope.curvature.linear_map import Matrix, as_linear_map
from optiscope.errors import OptiscopeError
from optiscope.objective.cost import Cost
from optiscope.objective.risk import EmpiricalRisk

__all__ = [
    "Conditioning",
    "ConditioningError",
    "SpectrumEnds",
    "condition_number",
    "inverse_of",
]

Inverse = Callable[[Tensor], Tensor]


class ConditioningError(OptiscopeError, ValueError):
    """A preconditioner whose inverse is not known, or not positive."""


@dataclass(frozen=True)
class SpectrumEnds:
    """Both ends of a spectrum.

    Attributes:
        largest: largest eigenvalue.
        smallest: smallest eigenvalue.
        number: largest over smallest; infinite where the smallest is not positive.
        spread: largest over the k-th largest: how unevenly the leading directions are scaled.
        converged: whether all of them are.
    """

    largest: float
    smallest: float
    number: float
    spread: float
    converged: bool


@dataclass(frozen=True)
class Conditioning:
    """The spectrum of A, and of P^-1 A.

    Attributes:
        before: of A.
        after: of P^-1 A; None without a preconditioner.
        cost: of both.
    """

    before: SpectrumEnds
    after: SpectrumEnds | None
    cost: Cost

    @property
    def gain(self) -> float:
        """Factor by which the spread of the leading eigenvalues has become smaller."""
        return math.nan if self.after is None else self.before.spread / self.after.spread


def condition_number(
    operator: Any,
    inverse: Inverse | Any | None = None,
    *,
    k: int = 10,
    damping: float = 0.0,
    tol: float = 1e-4,
    seed: int = 0,
    size: int | None = None,
) -> Conditioning:
    """Ends of the spectrum of A + damping I, before and after preconditioning.

    Args:
        operator: as for `top_eigenpairs`.
        inverse: product with P^-1 (positive definite), or an optimizer of the operator's risk.
        k: leading pairs for the spread.
        damping: added to the diagonal.
        tol: of the eigenpairs.
        seed: of the starting vectors.
        size: rows of a function.

    Raises:
        ConditioningError: an optimizer whose inverse is not known, or one that is not positive.
    """
    matrix = as_linear_map(operator, size)
    if inverse is not None and not callable(inverse):
        risk = getattr(operator, "risk", None)
        if not isinstance(risk, EmpiricalRisk):
            raise ConditioningError(
                "expected an operator of a risk for an optimizer's preconditioner, got another: "
                "pass a function v -> P^-1 v"
            )
        inverse = inverse_of(inverse, risk)
    damped = matrix
    if damping:
        damped = Matrix(lambda v: matrix @ v + damping * v, matrix.size, matrix.dtype,
                        matrix.device)  # fmt: skip
    costs: list[Cost] = []

    def ends(metric: Inverse | None) -> SpectrumEnds:
        high = top_eigenpairs(damped, k, tol=tol, seed=seed, inverse=metric, keep_vectors=False)
        low = top_eigenpairs(
            damped, 1, which="smallest", tol=tol, seed=seed, inverse=metric, keep_vectors=False
        )
        costs.extend([high.cost, low.cost])
        smallest, last = low.value, float(high.values[-1])
        return SpectrumEnds(
            largest=high.value,
            smallest=smallest,
            number=high.value / smallest if smallest > 0 else math.inf,
            spread=high.value / last if last > 0 else math.inf,
            converged=bool(high.converged.all() and low.converged.all()),
        )

    before = ends(None)
    after = None
    if inverse is not None:
        probe = torch.randn(matrix.size, generator=torch.Generator().manual_seed(seed))
        probe = probe.to(matrix.device, matrix.dtype)
        if not float(probe @ inverse(probe)) > 0:
            raise ConditioningError(
                "expected a positive definite P^-1, got one with v'P^-1 v <= 0: only its inverse "
                "square root has a meaning then"
            )
        after = ends(inverse)
    return Conditioning(before, after, sum(costs[1:], costs[0]))


def inverse_of(optimizer: Any, risk: EmpiricalRisk) -> Inverse:
    """The linear map that an optimizer applies to gradients, in the order of a risk's parameters.

    Known are optimizers with a method ``inverse_product(v)`` (as ours have), and those of torch
    that divide by the root of squared gradients (Adam, AdamW, NAdam, RAdam, RMSprop, Adagrad),
    without momentum and rate.

    Raises:
        ConditioningError: it is of another kind, has made no step, or trains other parameters.
    """
    present = dict(risk.model.named_parameters())
    wanted = [present[name] for name in risk.names]
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    places, start = {}, 0
    for p in owned:
        places[id(p)] = slice(start, start + p.numel())
        start += p.numel()
    missing = [n for n, p in zip(risk.names, wanted, strict=True) if id(p) not in places]
    if missing:
        raise ConditioningError(
            f"expected an optimizer of the risk's parameters, got one without {missing[0]!r}: "
            "restrict the risk to what it trains"
        )
    order = torch.cat([torch.arange(places[id(p)].start, places[id(p)].stop) for p in wanted])
    if hasattr(optimizer, "inverse_product"):

        def product(v: Tensor) -> Tensor:
            whole = v.new_zeros(start)
            whole[order] = v
            image: Tensor = optimizer.inverse_product(whole)
            return image[order]

        return product
    diagonal = torch.cat([_scale(optimizer, p).flatten() for p in owned])[order]
    return lambda v: v * diagonal.to(v.dtype)


def _scale(optimizer: Any, p: Tensor) -> Tensor:
    """1 / (root of the mean squared gradient + epsilon), as torch's optimizers have it."""
    state: Mapping[str, Any] = optimizer.state.get(p, {})
    group = next(g for g in optimizer.param_groups if any(q is p for q in g["params"]))
    squares = next(
        (state[key] for key in ("max_exp_avg_sq", "exp_avg_sq", "square_avg", "sum")
         if key in state), None,
    )  # fmt: skip
    if squares is None:
        raise ConditioningError(
            f"expected an optimizer with inverse_product or squared gradients, after a step, got "
            f"{type(optimizer).__name__}: pass a function v -> P^-1 v"
        )
    if "betas" in group:
        squares = squares / (1 - group["betas"][1] ** float(state["step"]))
    scale: Tensor = 1 / (squares.sqrt() + group["eps"])
    return scale.detach()
