"""Condition numbers before and after, inverses of optimizers, overlap and staleness."""

from __future__ import annotations

import pytest
import torch
from networks import dense, risk_of_network
from torch import nn

from optiscope import EmpiricalRisk, PreconditionedSGD
from optiscope.curvature import (
    condition_number,
    inverse_of,
    staleness,
    subspace_overlap,
    top_eigenpairs,
)
from optiscope.curvature.conditioning import ConditioningError


def test_a_preconditioner_that_is_the_matrix_makes_all_eigenvalues_one() -> None:
    values = torch.logspace(-1, 3, 30).double()
    q = torch.linalg.qr(torch.randn(30, 30).double())[0]
    a = (q * values) @ q.T
    a = (a + a.T) / 2
    result = condition_number(a, lambda v: torch.linalg.solve(a, v), tol=1e-8)
    assert result.before.number == pytest.approx(1e4, rel=1e-5)
    assert result.after is not None
    assert result.after.number == pytest.approx(1, rel=1e-6)
    assert result.gain == pytest.approx(result.before.spread, rel=1e-6)
    jacobi = condition_number(a, lambda v: v / a.diagonal(), tol=1e-8).after
    assert jacobi is not None
    scaled = torch.linalg.eigvals(a / a.diagonal()[:, None]).real
    assert jacobi.number == pytest.approx(float(scaled.max() / scaled.min()), rel=1e-4)
    damped = condition_number(a, damping=10.0, tol=1e-8).before
    assert damped.number == pytest.approx(1010 / 10.1, rel=1e-5)
    assert condition_number(-a).before.number == float("inf")
    with pytest.raises(ConditioningError, match="positive"):
        condition_number(a, lambda v: -v)


@pytest.mark.parametrize("kind", ["adam", "rmsprop", "adagrad"])
def test_inverses_of_torch_optimizers_are_what_they_step_by(kind: str) -> None:
    """With a fresh state a step is -rate P^-1 g (Adam's first moment equals the gradient)."""
    risk = risk_of_network()
    risk.model.double()
    make = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop,
            "adagrad": torch.optim.Adagrad}[kind]  # fmt: skip
    parameters = list(risk.model.parameters())[::-1]  # another order than the risk's
    optimizer = make(parameters, lr=1e-3)
    before, gradient = risk.parameters, risk.gradient()
    for p, g in zip(risk.model.parameters(), risk.unflatten(gradient).values(), strict=True):
        p.grad = g
    optimizer.step()
    step = (risk.parameters - before) / -1e-3
    torch.testing.assert_close(inverse_of(optimizer, risk)(gradient), step, rtol=1e-5, atol=1e-5)
    result = condition_number(risk.hessian(), optimizer, k=3)
    assert result.after is not None
    assert result.after.largest > 0


def test_our_preconditioner_evens_out_the_leading_eigenvalues() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 20) * torch.cat([torch.tensor([8.0, 6.0]), torch.ones(18)])
    y = x @ torch.randn(20)
    model = nn.Linear(20, 1, bias=False)

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs.squeeze(1) - targets).square().mean() / 2

    optimizer = PreconditionedSGD(model.parameters(), est_rank=2, num_observations=6)
    for _ in range(40):

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            value = loss(model(x), y)
            value.backward()
            return value

        optimizer.step(closure)
    risk = EmpiricalRisk(model, loss, (x, y))
    v = torch.randn(20)
    inverse = inverse_of(optimizer, risk)
    assert not torch.allclose(inverse(v), v)
    result = condition_number(risk.hessian(), optimizer, k=5)
    assert result.gain > 1.3


def test_optimizers_without_an_inverse_are_refused() -> None:
    risk = risk_of_network()
    sgd = torch.optim.SGD(risk.model.parameters(), lr=0.1)
    with pytest.raises(ConditioningError, match="SGD"):
        inverse_of(sgd, risk)
    other = torch.optim.Adam(nn.Linear(2, 2).parameters())
    with pytest.raises(ConditioningError, match=r"0\.weight"):
        inverse_of(other, risk)


def test_overlap_and_staleness() -> None:
    risk = risk_of_network()
    theta = risk.parameters
    other = theta + 0.3 * torch.randn(len(theta)).double()
    result = staleness(risk, [theta, theta, other], k=3, tol=1e-8)
    vectors = [torch.linalg.eigh(dense(risk.hessian(t)))[1][:, -3:] for t in (theta, other)]
    right = float((vectors[0].T @ vectors[1]).square().sum() / 3)
    assert result.overlaps[0] == pytest.approx(1)
    assert result.overlaps[1] == pytest.approx(1)
    assert result.overlaps[2] == pytest.approx(right, abs=1e-5)
    assert result.captured[:2] == pytest.approx([1, 1])
    assert result.captured[2] < 1
    assert all(result.converged)
    bare = top_eigenpairs(risk.hessian(), 2, keep_vectors=False)
    with pytest.raises(ConditioningError, match="keep_vectors"):
        subspace_overlap(bare, bare)
