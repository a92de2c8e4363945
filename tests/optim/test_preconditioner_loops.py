"""The preconditioner in loops as people write them: schedulers, accumulation, autocast, heads."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import StepLR

from optiscope.optim import AdaptiveSGD, PreconditionedSGD
from optiscope.optim.registry import bind

SMALL: dict[str, Any] = {"est_rank": 2, "num_observations": 3, "prior_iterations": 4}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 40), nn.Tanh(), nn.Linear(40, 3))


def batches(steps: int, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(size, 4), torch.randint(3, (size,))) for _ in range(steps)]


def closure_of(opt: Any, model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        opt.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("size", [1, 4])
def test_noise_of_tiny_batches_does_not_end_training(size: int) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(500, 4)
    targets = (inputs[:, :2].sum(1) > 0).long()
    model = network()
    opt = AdaptiveSGD(model.parameters())
    for rows in torch.randint(500, (1500, size)):
        opt.step(closure_of(opt, model, inputs[rows], targets[rows]))
    assert opt.get_log()["step_size"][0] > 1e-3
    with torch.no_grad():
        assert functional.cross_entropy(model(inputs), targets) < 0.2


def test_a_gradient_of_exactly_zero_is_no_growth_afterwards() -> None:
    weight = nn.Parameter(torch.zeros(8))
    opt = AdaptiveSGD([weight], check_every=0)
    torch.manual_seed(0)
    for step in range(200):
        opt.zero_grad()
        flat = 0.0 if step in (30, 31, 60, 90) else 1.0
        opt.backward(flat * (0.5 * weight.square().sum() + torch.randn(8) @ weight))
        opt.step()
    assert opt.get_log()["step_size"][0] > 0.3


def test_gradients_that_keep_growing_lower_the_rate() -> None:
    """Without curvature to explain it."""
    weight = nn.Parameter(torch.zeros(8))
    opt = AdaptiveSGD([weight], check_every=0)
    torch.manual_seed(0)
    rates = []
    for step in range(240):
        slope = torch.randn(8) * (1.0 if step < 40 else 1.08 ** (step - 40))
        opt.zero_grad()
        opt.backward(0.5 * weight.square().sum() + slope @ weight)
        opt.step()
        rates.append(opt.get_log()["step_size"][0])
    assert rates[39] == pytest.approx(1)
    assert rates[-1] < 0.5


def test_a_copy_made_under_a_scheduler_is_its_own() -> None:
    model = network()
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    StepLR(opt, 5)
    before = copy.deepcopy(model.state_dict())
    other, twin = copy.deepcopy((model, opt))
    for x, y in batches(12):
        twin.step(closure_of(twin, other, x, y))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert any(not torch.equal(before[name], value) for name, value in other.state_dict().items())
    pickle.loads(pickle.dumps(opt)).state_dict()


def test_a_closure_that_does_not_clear_gradients_is_refused() -> None:
    model = network()
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    (x, y), (more, labels) = batches(2)
    functional.cross_entropy(model(x), y).backward()  # accumulated outside, as trainers do

    def closure() -> Tensor:
        loss = functional.cross_entropy(model(more), labels)
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="expected a closure that clears gradients"):
        opt.step(closure)
    opt.zero_grad(set_to_none=False)
    opt.step(closure)
    opt.zero_grad()

    def both() -> Tensor:
        opt.zero_grad()
        for inputs, targets in ((x, y), (more, labels)):
            loss = functional.cross_entropy(model(inputs), targets) / 2
            loss.backward()
        return loss

    opt.step(both)


@pytest.mark.parametrize("by_closure", [True, False])
def test_layers_of_others_keep_no_graph(by_closure: bool) -> None:
    torch.manual_seed(0)
    body, head = nn.Linear(4, 10), nn.Linear(10, 3)
    opt = AdaptiveSGD(head.parameters(), **SMALL)
    model = nn.Sequential(body, nn.Tanh(), head)
    for x, y in batches(6):
        if by_closure:
            opt.step(closure_of(opt, model, x, y))
        else:
            opt.zero_grad()
            opt.backward(functional.cross_entropy(model(x), y))
            opt.step()
        assert body.weight.grad is not None
        assert not body.weight.grad.requires_grad
    assert opt.hessian_products > 0


def test_weights_that_changed_since_backward_are_named_as_the_reason() -> None:
    model = network()
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    ((x, y),) = batches(1)
    opt.backward(functional.cross_entropy(model(x), y))
    other.step()
    with pytest.raises(RuntimeError, match="weights changed between the backward pass"):
        opt.step()


def test_the_closure_may_return_a_detached_loss() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return 5 * x**2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return 10 * ctx.saved_tensors[0] * g

    weight = nn.Parameter(torch.linspace(1, 2, 5, dtype=torch.float64))
    opt = AdaptiveSGD([weight], **SMALL)

    def closure() -> Tensor:
        opt.zero_grad()
        loss = (Once.apply(weight) + 0.5 * weight**2).sum()
        loss.backward()
        return loss.detach()

    for _ in range(10):
        opt.step(closure)
    assert opt.get_log()["step_size"][0] == pytest.approx(1 / 11, rel=1e-3)


def test_a_backward_pass_started_otherwise_is_looked_at_too() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 5 * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return 5 * g

    weight = nn.Parameter(torch.ones(3))
    opt = AdaptiveSGD([weight], **SMALL, hessian="exact")

    def closure() -> Tensor:
        opt.zero_grad()
        loss = (Once.apply(weight) ** 2).sum()
        torch.autograd.backward(loss, create_graph=True)
        return loss

    with pytest.raises(RuntimeError, match="without second derivatives"):
        opt.step(closure)


def test_decay_of_frozen_parameters_is_no_part_of_the_objective() -> None:
    rates = []
    for frozen in (0.0, 100.0):
        weight = nn.Parameter(torch.full((20,), 0.01, dtype=torch.float64))
        rest = nn.Parameter(torch.full((200,), frozen, dtype=torch.float64), requires_grad=False)
        opt = AdaptiveSGD([weight, rest], weight_decay=0.1, **SMALL)
        for _ in range(12):
            opt.zero_grad()
            opt.backward(0.5 * (torch.linspace(1, 10, 20) * weight**2).sum())
            opt.step()
        rates.append(opt.get_log()["step_size"][0])
    assert rates[0] == pytest.approx(rates[1], rel=1e-6)


def test_a_late_group_joins_at_the_rate_in_use() -> None:
    model, late = network(), nn.Linear(3, 3)
    whole = nn.Sequential(model, late)
    opt = AdaptiveSGD(model.parameters(), lr=0.5, **SMALL, estimate_every=10)
    data = batches(60)
    for x, y in data[:40]:
        opt.step(closure_of(opt, whole, x, y))
    rate = opt.get_log()["step_size"][0]
    assert rate != 0.5
    opt.add_param_group({"params": late.parameters(), "lr": 0.5})
    assert opt.get_log()["step_size"] == [rate, rate]
    for x, y in data[40:]:
        opt.step(closure_of(opt, whole, x, y))
        assert max(opt.get_log()["step_size"]) < 8 * rate


@pytest.mark.parametrize("hessian", ["exact", "difference"])
def test_a_step_inside_autocast_does_its_own_arithmetic_outside_it(hessian: str) -> None:
    model = network()
    opt = PreconditionedSGD(model.parameters(), **SMALL, hessian=hessian)
    for x, y in batches(20):
        with torch.autocast("cpu", torch.bfloat16):
            opt.step(closure_of(opt, model, x, y))
    log = opt.get_log()
    assert log["phase"] == "ready"
    assert 0 < log["step_size"][0] < 10
    basis = opt._estimate.basis
    if basis is not None:
        torch.testing.assert_close(basis @ basis.mT, torch.eye(len(basis)), rtol=0, atol=1e-5)


def test_evaluations_at_other_weights_do_not_see_cast_weights_of_the_first() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    opt = AdaptiveSGD(layer.parameters(), **SMALL, hessian="difference")
    for x, y in batches(12, size=64):
        with torch.autocast("cpu", torch.bfloat16):
            opt.step(closure_of(opt, layer, x, y))
    assert opt.get_log()["eigenvalues"][0][0] > 0.2  # exactly 0 with the first one's


def test_an_empty_parameter_is_no_obstacle() -> None:
    model, empty = network(), nn.Parameter(torch.zeros(0, 3))
    opt = PreconditionedSGD([*model.parameters(), empty], **SMALL)
    for x, y in batches(12):
        opt.zero_grad()
        opt.backward(functional.cross_entropy(model(x), y) + empty.sum())
        opt.step()
    assert opt.get_log()["phase"] == "ready"


def test_newer_settings_of_precision_are_no_obstacle() -> None:
    before = torch.backends.cudnn.rnn.fp32_precision  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]
    try:
        model = network()
        opt = PreconditionedSGD(model.parameters(), **SMALL)
        for x, y in batches(3):
            opt.step(closure_of(opt, model, x, y))
    finally:
        torch.backends.cudnn.rnn.fp32_precision = before  # type: ignore[attr-defined]
    assert torch.backends.cudnn.enabled
    assert opt.hessian_products > 0


def test_a_buffer_that_is_replaced_is_put_back_too() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            result: Tensor = self.inner(x)
            return result

    model = Counted()
    opt = AdaptiveSGD(model.parameters(), **SMALL, hessian="difference")
    for x, y in batches(12):
        opt.step(closure_of(opt, model, x, y))
    assert opt.hessian_products > 3
    assert model.calls == 12


def test_ascent_is_refused_in_a_group_too() -> None:
    with pytest.raises(ValueError, match="maximize=True has no meaning here"):
        PreconditionedSGD([{"params": network().parameters(), "maximize": True}])


def test_one_beta_leaves_the_other_at_the_optimizers_own() -> None:
    group = bind("soap", {"lr": 1e-3, "beta1": 0.8}).on_probe().param_groups[0]
    assert tuple(group["betas"]) == (0.8, 0.95)
    group = bind("adam", {"lr": 1e-3, "beta1": 0.8}).on_probe().param_groups[0]
    assert tuple(group["betas"]) == (0.8, 0.999)
