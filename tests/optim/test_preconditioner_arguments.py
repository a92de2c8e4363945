"""Settings, inner optimizers and parameters that the preconditioner takes or refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_network import SMALL, batches, net, run, weights
from torch import Tensor, nn
from torch.nn import functional

from optiscope.optim.preconditioner.optimizer import Preconditioner
from optiscope.optim.preconditioner.variants import (
    PreconditionedSGD,
    PreconditionedTunedMomentum,
    PreconditionedTunedSGD,
)


def test_a_state_of_another_optimizer_is_refused() -> None:
    model = net()
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    with pytest.raises(ValueError, match="expected a state of PreconditionedSGD"):
        opt.load_state_dict(torch.optim.SGD(model.parameters(), lr=0.1).state_dict())


def test_tuned_variants_keep_their_rate_and_need_one() -> None:
    _, opt = run(lambda p, **k: PreconditionedTunedSGD(p, lr=0.05, **k))
    assert opt.get_log()["step_size"] == [0.05]
    assert len(opt.get_log()["eigenvalues"]) == 2
    with pytest.raises(ValueError, match="pass lr"):
        PreconditionedTunedMomentum(net().parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_types_of_parameters(dtype: torch.dtype) -> None:
    model = net().to(dtype)
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    for x, y in batches(12):
        opt.zero_grad()
        opt.backward(functional.cross_entropy(model(x.to(dtype)), y))
        opt.step()
    assert bool(weights(model).isfinite().all())
    assert opt.get_log()["phase"] == "ready"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"est_rank": -1}, "est_rank must be an integer of at least 0, got -1"),
        ({"num_observations": 2.5}, "num_observations must be an integer"),
        ({"prior_iterations": 0}, "prior_iterations must be an integer of at least 1"),
        ({"weight_decay": -0.1}, "weight_decay must be a non-negative finite number"),
        ({"lr": 0.0}, "lr must be a positive finite number"),
        ({"lr": float("nan")}, "lr must be a positive finite number"),
        ({"hessian": "magic"}, "hessian must be one of"),
        ({"estimate_every": 0}, "estimate_every must be an integer of at least 1"),
        ({"check_every": -3}, "check_every must be an integer of at least 0"),
        ({"maximize": True}, "negate the loss"),
        ({"momentum": -1.0}, "momentum"),
        ({"cross_batch": 1}, "cross_batch must be True or False, got 1"),
    ],
)
def test_arguments_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PreconditionedSGD(net().parameters(), **settings)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sgd", "must be a subclass of torch.optim.Optimizer, got 'sgd'"),
        (nn.Linear, "must be a subclass of torch.optim.Optimizer"),
        (torch.optim.LBFGS, "LBFGS.step needs a closure"),
    ],
)
def test_inner_optimizers_that_cannot_be_used_are_refused(kind: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Preconditioner(net().parameters(), optim_class=kind)


def test_counts_may_be_numpys() -> None:
    opt = PreconditionedSGD(net().parameters(), est_rank=np.int64(1), lr=np.float32(0.5))
    assert type(opt.est_rank) is int
    assert type(opt.param_groups[0]["first_lr"]) is float


def test_complex_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="real floating-point"):
        PreconditionedSGD([torch.ones(2, dtype=torch.complex64, requires_grad=True)])


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    opt = PreconditionedSGD(table.parameters())

    def closure() -> Tensor:
        opt.zero_grad()
        loss = table(torch.tensor([1, 3])).square().sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="with sparse=False"):
        opt.step(closure)
    closure()
    with pytest.raises(RuntimeError, match="with sparse=False"):
        opt.step()
