"""The preconditioner where something unusual meets it: kernels, inner optimizers, lost batches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from optiscope.optim import AdaptiveSGD, PreconditionedSGD, Preconditioner
from optiscope.optim.preconditioner.optimizer import CurvatureSource


class TanhOnce(torch.autograd.Function):
    """A kernel with a gradient and no second derivative, as most hand-written ones are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * (1 - torch.tanh(x) ** 2)


class Net(nn.Module):
    def __init__(self, activation: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.activation = nn.Linear(10, 16), nn.Linear(16, 4), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.activation(self.a(x)))


torch.manual_seed(1)
X, Y = 3 * torch.randn(64, 10), torch.randint(4, (64,))


def train(opt: Preconditioner, model: nn.Module, steps: int) -> None:
    for _ in range(steps):
        opt.zero_grad()
        opt.backward(functional.cross_entropy(model(X), Y))
        opt.step()


def train_by_closure(opt: Preconditioner, model: nn.Module, steps: int) -> None:
    def closure() -> Tensor:
        opt.zero_grad()
        loss = functional.cross_entropy(model(X), Y)
        loss.backward()
        return loss

    for _ in range(steps):
        opt.step(closure)


def test_functions_differentiable_once_are_seen() -> None:
    once, twice = Net(TanhOnce.apply), Net(torch.tanh)
    by_difference, exact = AdaptiveSGD(once.parameters()), AdaptiveSGD(twice.parameters())
    train_by_closure(by_difference, once, 20)
    train_by_closure(exact, twice, 20)
    found = [log["eigenvalues"][0][0] for log in (by_difference.get_log(), exact.get_log())]
    assert found[0] == pytest.approx(found[1], rel=0.02)
    with pytest.raises(RuntimeError, match="once-differentiable"):
        train(AdaptiveSGD(once.parameters()), once, 1)
    with pytest.raises(RuntimeError, match="hessian='auto'"):
        train_by_closure(AdaptiveSGD(once.parameters(), hessian="exact"), once, 1)


def test_a_last_function_differentiable_once_is_seen() -> None:
    weight = nn.Parameter(torch.ones(3))
    opt = AdaptiveSGD([weight])
    with pytest.raises(RuntimeError, match="once-differentiable"):
        opt.backward(TanhOnce.apply(weight).sum())


class Counting(torch.optim.SGD):
    """An optimizer that counts its steps in its groups."""

    def __init__(self, params: Any, lr: float, momentum: float = 0.0) -> None:
        super().__init__(params, lr=lr, momentum=momentum)
        for group in self.param_groups:
            group["count"] = 0
        self.defaults["count"] = 0

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["count"] += 1
        return super().step(closure)


def test_what_an_inner_optimizer_counts_is_its_own_and_settings_are_followed() -> None:
    model = Net(torch.tanh)
    opt = Preconditioner(model.parameters(), optim_class=Counting, momentum=0.5)
    train(opt, model, 30)
    group = opt._inner.optimizer.param_groups[0]  # type: ignore[union-attr]
    assert group["count"] > 20
    opt.param_groups[0]["momentum"] = 0.8
    again = Preconditioner(Net(torch.tanh).parameters(), optim_class=Counting, momentum=0.5)
    again.load_state_dict(copy.deepcopy(opt.state_dict()))
    inner = again._inner.optimizer.param_groups[0]  # type: ignore[union-attr]
    assert (inner["count"], inner["momentum"]) == (group["count"], 0.8)
    train(again, model, 1)
    assert inner["count"] == group["count"] + 1


class Averaging(torch.optim.SGD):
    def train(self) -> None: ...
    def eval(self) -> None: ...


def test_an_inner_optimizer_that_averages_is_refused() -> None:
    with pytest.raises(TypeError, match=r"averages .* between train\(\) and eval\(\)"):
        Preconditioner(Net(torch.tanh).parameters(), optim_class=Averaging)


@pytest.mark.parametrize("phase", ["estimating", "ready"])
def test_a_large_gradient_that_is_not_finite_is_left_out(phase: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 4))
    opt = PreconditionedSGD(model.parameters(), lr=0.01, check_every=0)
    x = torch.randn(64, 200)
    if phase == "ready":
        for _ in range(25):
            opt.zero_grad()
            opt.backward(functional.cross_entropy(model(x), Y))
            opt.step()
        assert opt.get_log()["phase"] == "ready"
    before = [p.detach().clone() for p in model.parameters()]
    opt.zero_grad()
    opt.backward(functional.cross_entropy(model(x), Y))
    gradient = model[0].weight.grad
    assert gradient is not None
    gradient[3, 5] = torch.inf
    with pytest.warns(RuntimeWarning, match="non-finite gradient"):
        opt.step()
    assert opt.get_log()["skipped_batches"] == 1
    assert all(map(torch.equal, before, model.parameters()))


def test_running_out_of_memory_is_not_mistaken_for_a_missing_derivative() -> None:
    class Full(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return Fuller.apply(g)

    class Fuller(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, g: Tensor) -> Tensor:
            return g.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("none left")

    model = nn.Sequential(nn.Linear(10, 4), nn.Tanh(), nn.Linear(4, 4))
    opt = AdaptiveSGD(model.parameters())

    def closure() -> Tensor:
        opt.zero_grad()
        loss = functional.cross_entropy(model[2](Full.apply(model[:2](X))), Y)
        loss.backward()
        return loss

    with pytest.raises(torch.OutOfMemoryError, match="none left"):
        opt.step(closure)


def test_a_batch_that_was_never_stepped_on_is_forgotten_whoever_clears_gradients() -> None:
    sums = []
    for lost in (False, True):
        model = Net(torch.tanh)
        opt = AdaptiveSGD(model.parameters())
        for _ in range(1 + lost):
            model.zero_grad()
            opt.backward(functional.cross_entropy(model(X), Y))
        opt.step()
        sums.append(opt._estimate.sums.sy)
    assert sums[0] == sums[1]


def test_differences_need_a_closure() -> None:
    model = Net(torch.tanh)
    with pytest.raises(RuntimeError, match=r"expected a closure.*opt.step\(closure\)"):
        train(AdaptiveSGD(model.parameters(), hessian="difference"), model, 1)


def test_a_copy_between_backward_and_step_takes_nothing_away() -> None:
    model = Net(torch.tanh)
    opt = AdaptiveSGD(model.parameters())
    opt.backward(functional.cross_entropy(model(X), Y))
    copy.deepcopy(opt)
    opt.step()
    assert opt.hessian_products == 1


def test_a_state_of_another_model_is_refused_and_changes_nothing() -> None:
    model, other = Net(torch.tanh), nn.Linear(10, 4)
    opt, another = AdaptiveSGD(model.parameters()), AdaptiveSGD(other.parameters())
    train(opt, model, 20)
    with pytest.raises(ValueError, match="expected a state of 44 parameters in all, got one of"):
        another.load_state_dict(opt.state_dict())
    train(another, other, 20)
    assert another.get_log()["phase"] == "ready"


class MatricesAlone(torch.optim.SGD):
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if any(p.ndim < 2 for p in param_group["params"]):
            raise ValueError("matrices alone")
        super().add_param_group(param_group)


def test_a_group_that_the_inner_optimizer_refuses_leaves_no_trace() -> None:
    model = Net(torch.tanh)
    opt = Preconditioner([model.a.weight], optim_class=MatricesAlone)
    with pytest.raises(ValueError, match="matrices alone"):
        opt.add_param_group({"params": [model.a.bias]})
    assert len(opt.param_groups) == 1
    train(opt, model, 20)


def test_what_was_found_out_about_second_derivatives_is_saved() -> None:
    source = CurvatureSource("auto", check_deterministic=True)
    source._by_difference = True
    other = CurvatureSource("auto", check_deterministic=True)
    other.take(source.to_dict())
    assert other._by_difference
    exact = CurvatureSource("exact", check_deterministic=True)
    exact.take(source.to_dict())
    assert not exact._by_difference
