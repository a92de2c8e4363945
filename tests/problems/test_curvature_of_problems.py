"""Curvature over all kinds of digits problem: it works, and leaves no trace."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from optiscope import curvature, problems
from optiscope.problems.risk import risk_of

DIGITS = [entry.name for entry in problems.entries() if entry.name.startswith("digits")]


def traces(model: torch.nn.Module) -> list[Any]:
    return [
        [t.clone() for t in model.state_dict().values()],
        [m.training for m in model.modules()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [(id(p), p._version) for p in model.parameters()],
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("name", DIGITS)
def test_curvature_leaves_no_trace(name: str) -> None:
    problem = problems.get(name)
    model = problem.make_model().train()
    for p in list(model.parameters())[::2]:
        p.grad = torch.ones_like(p)
    before = traces(model)
    risk = risk_of(problem, "valid", model, samples=24, batch_size=12)
    operator = risk.hessian()
    pairs = curvature.top_eigenpairs(operator, 1, tol=1e-2)
    assert pairs.converged.all()
    assert pairs.vectors is not None
    u = pairs.vectors[0]
    gap = float((operator @ u - pairs.values[0] * u).norm())
    assert gap <= pairs.tolerance + 1e-4 * pairs.spectral_radius
    curvature.trace(operator, probes=2)
    curvature.spectral_density(operator, probes=2, steps=4)
    assert same(before, traces(model))

    def fail(product: Any) -> None:
        raise ArithmeticError("as asked")

    with pytest.raises(ArithmeticError):
        curvature.top_eigenpairs(risk.hessian(), 1, progress=fail)
    assert same(before, traces(model))
