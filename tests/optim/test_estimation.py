"""The estimation as a pure function, and the published way to leave out or extend its phases."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_network import F64, SMALL, batches, closure_for, net, run, weights
from torch import Tensor
from torch.nn import functional

from optiscope.optim.preconditioner import AdaptiveSGD, PreconditionedSGD, Preconditioner
from optiscope.optim.preconditioner.estimate import READY, Counts, Estimate
from optiscope.optim.preconditioner.estimation import Estimation, Seen

PHASES = (
    "_gather_curvature_information",
    "_estimate_prior",
    "_setup_estimated_hessian",
    "_apply_estimated_inverse",
    "_hessian_vector_product",
    "_update_estimated_hessian",
    "_create_low_rank",
    "_apply_preconditioner",
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    return bool(a == b)


def quadratic(n: int = 9) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    a = torch.randn(n, n, generator=g, dtype=F64)
    return a @ a.mT / n + torch.eye(n, dtype=F64), torch.randn(n, generator=g, dtype=F64)


def test_advancing_is_pure_and_repeats_itself() -> None:
    hessian, gradient = quadratic()
    estimation = Estimation(est_rank=2, num_observations=3, prior_iterations=2, power_iterations=3)
    e, kept = Estimate(), []
    for step in range(12):
        seen = Seen(gradient * (1 + step), hessian.mv, lambda: 1.0, step)
        before = copy.deepcopy(e.to_dict(Counts()))
        new = estimation.advance(e, seen)
        again = estimation.advance(e, seen).to_dict(Counts())
        assert all(same(v, before[k]) for k, v in e.to_dict(Counts()).items())
        assert all(same(v, again[k]) for k, v in new.to_dict(Counts()).items())
        kept.append(new.phase)
        e = new
        if e.phase == READY:
            break
    assert kept == ["prior", "observe", "observe", "observe", "rate", "rate", "rate", "ready"]
    assert e.basis is not None
    assert e.rate is not None
    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    assert largest * (1 - 0.2) < float(e.values[0]) <= largest * (1 + 1e-12)


def test_the_optimizer_is_a_shell_around_the_pure_estimation() -> None:
    model = net()
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    e, estimation = Estimate(), Estimation(**SMALL)
    for step, (x, y) in enumerate(batches(12)):
        point = {k: p.detach().clone() for k, p in model.named_parameters()}

        def loss(vector: Tensor, x: Tensor = x, y: Tensor = y, at: Any = point) -> Tensor:
            sizes = [p.numel() for p in at.values()]
            pieces = vector.split(sizes)
            state = {k: v.view(p.shape) for (k, p), v in zip(at.items(), pieces, strict=True)}
            return functional.cross_entropy(torch.func.functional_call(model, state, (x,)), y)

        theta = weights(model)
        gradient = torch.func.grad(loss)(theta)
        hessian = torch.func.hessian(loss)(theta)
        if e.phase != READY:
            norm = float(theta.norm())
            e = estimation.advance(e, Seen(gradient, hessian.mv, lambda norm=norm: norm, step))
        opt.step(closure_for(model, opt, (x, y)))
    assert e.phase == opt.get_log()["phase"] == READY
    assert opt.get_log()["step_size"] == pytest.approx([e.rate], rel=1e-9)
    torch.testing.assert_close(opt._estimate.values, e.values, rtol=1e-9, atol=0)


@pytest.mark.parametrize("phase", PHASES)
def test_any_single_phase_may_be_emptied(phase: str) -> None:
    def empty(self: Any) -> None:
        return None

    emptied = type("Emptied", (PreconditionedSGD,), {phase: empty})
    at, opt = run(emptied, steps=40)
    assert bool(at.isfinite().all())
    without_a_rate = phase in ("_gather_curvature_information", "_estimate_prior")
    assert torch.equal(at, weights(net())) == without_a_rate
    if phase == "_apply_preconditioner":
        assert torch.equal(at, run(AdaptiveSGD, steps=40)[0])
    if phase in ("_create_low_rank", "_setup_estimated_hessian"):
        assert opt._estimate.basis is None


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_that_is_extended_does_what_it_did(phase: str) -> None:
    calls = []

    def extended(self: Any) -> Any:
        calls.append(phase)
        return getattr(super(watching, self), phase)()

    watching: Any = type("Watching", (PreconditionedSGD,), {phase: extended})
    assert torch.equal(run(watching)[0], run(PreconditionedSGD)[0])
    assert calls


def test_a_subclass_may_precondition_by_less() -> None:
    class Half(PreconditionedSGD):
        def _apply_preconditioner(self) -> Any:
            whole = super()._apply_preconditioner()
            return whole and replace(whole, coefficients=whole.coefficients / 2)

    at, opt = run(Half)
    assert bool(at.isfinite().all())
    assert not torch.equal(at, run(PreconditionedSGD)[0])
    assert opt.get_log()["phase"] == "ready"


def test_a_mixin_may_empty_a_phase() -> None:
    class Plain:
        def _apply_preconditioner(self) -> None: ...

    class WithMixin(Plain, PreconditionedSGD): ...

    assert torch.equal(run(WithMixin)[0], run(AdaptiveSGD)[0])


def test_an_estimate_is_as_it_was_after_an_error() -> None:
    class Breaking(Preconditioner):
        def _update_estimated_hessian(self) -> None:
            raise KeyError("mine")

    model = net()
    opt = Breaking(model.parameters(), **SMALL)
    data = batches(6)
    for batch in data[:4]:
        opt.step(closure_for(model, opt, batch))
    before = opt._estimate
    with pytest.raises(KeyError):
        opt.step(closure_for(model, opt, data[4]))
    assert opt._estimate is before
