"""What optimizers may ask of the loop: names, the model, differentiable gradients, the loss."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optiscope
from optiscope.errors import OptiscopeError
from optiscope.optim import registry
from optiscope.optim.registry import BadSettingsError, UnknownOptimizerError, bind
from optiscope.optim.spec import OptimizerSpec


class Named(torch.optim.SGD):
    """Needs (name, parameter) pairs, and decays no bias."""

    seen: tuple[str, ...] = ()

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        pairs = list(params)
        type(self).seen = tuple(name for name, _ in pairs)
        super().__init__([p for _, p in pairs], lr=lr)


class NeedsModel(torch.optim.SGD):
    """Takes the model in place of its parameters."""

    def __init__(self, model: nn.Module, lr: float = 0.1) -> None:
        self.layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
        super().__init__(model.parameters(), lr=lr)


class NeedsBoth(torch.optim.SGD):
    def __init__(self, params: Any, network: nn.Module | None = None, lr: float = 0.1) -> None:
        assert isinstance(network, nn.Module)
        super().__init__(params, lr=lr)


class ByDimension(torch.optim.SGD):
    """Looks at tensors, as most optimizers in the wild do."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        params = list(params)
        assert all(isinstance(p, Tensor) for p in params)
        matrices = [p for p in params if p.ndim > 1]
        vectors = [p for p in params if p.ndim < 2]
        super().__init__([{"params": matrices}, {"params": vectors}], lr=lr)


class SecondOrder(torch.optim.SGD):
    """Differentiates the gradient, as AdaHessian does."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        params = [p for group in self.param_groups for p in group["params"]]
        gradients = [p.grad for p in params]
        with torch.enable_grad():
            along = [torch.ones_like(p) for p in params]
            products = torch.autograd.grad(gradients, params, along, retain_graph=False)
        for p, product in zip(params, products, strict=True):
            p.sub_(self.param_groups[0]["lr"] * p.grad / (1 + product.abs()))


class WithLoss(torch.optim.SGD):
    """Polyak's step: as long as the loss says."""

    def step(self, closure: Any = None, *, loss: Tensor) -> None:  # type: ignore[override]
        assert not loss.requires_grad
        params = [p for group in self.param_groups for p in group["params"]]
        square = sum(float(p.grad.square().sum()) for p in params)
        with torch.no_grad():
            for p in params:
                p.sub_(0.1 * float(loss) / square * p.grad)


class Plain:
    def __init__(self, params: Any) -> None:
        self.params = params


def lion_factory(params: Any, lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


def closure_factory(params: Any, lr: float = 0.01) -> torch.optim.Optimizer:
    class Twice(torch.optim.SGD):
        def step(self, closure: Any) -> Any:  # type: ignore[override]
            closure()
            super().step()
            return closure()

    return Twice(params, lr=lr)


def list_factory(params: Any) -> Any:
    return [params]


partial_factory = functools.partial(torch.optim.SGD, lr=0.05)
NAMED = OptimizerSpec("named", Named, named=True, version=1)
MODEL = OptimizerSpec("with_model", NeedsModel, model="model", version=1)
BOTH = OptimizerSpec("with_both", NeedsBoth, model="network", version=1)
SECOND = OptimizerSpec("second_order", SecondOrder, create_graph=True, version=1)
LOSS = OptimizerSpec("with_loss", WithLoss, loss=True, version=1)
HERE = __name__


@pytest.mark.parametrize("name", ["NAMED", "MODEL", "BOTH", "SECOND", "LOSS"])
def test_what_a_spec_asks_for_it_gets(name: str) -> None:
    run = optiscope.run("digits_mlp", f"{HERE}:{name}", epochs=1, threads=1)
    assert run.status == "finished", run.reason
    losses = [m.value for m in run.metrics if (m.split, m.name) == ("train", "loss")]
    assert losses[-1] < losses[0]


def test_names_are_those_of_the_model() -> None:
    optiscope.run("digits_mlp", f"{HERE}:NAMED", epochs=1, threads=1)
    model = optiscope.problems.get("digits_mlp").make_model()
    assert Named.seen == tuple(name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    "name", ["ByDimension", "lion_factory", "closure_factory", "partial_factory"]
)
def test_classes_that_look_at_tensors_and_factories_work_at_once(name: str) -> None:
    run = optiscope.run("digits_mlp", f"{HERE}:{name}", epochs=1, threads=1)
    assert run.status == "finished", run.reason


def test_a_function_may_be_passed_as_it_is() -> None:
    bound = bind(lion_factory, {"lr": 0.2})
    assert bound.spec.name == f"{HERE}:lion_factory"
    assert not bound.closure
    assert bind(closure_factory, {}).closure


def test_a_missing_word_of_the_spec_is_named_where_it_is_missed() -> None:
    run = optiscope.run("digits_mlp", f"{HERE}:SecondOrder", epochs=1, threads=1)
    assert run.status == "crashed"
    assert "create_graph=True" in run.reason
    run = optiscope.run("digits_mlp", f"{HERE}:WithLoss", epochs=1, threads=1)
    assert "loss=True" in run.reason


@pytest.mark.parametrize("name", ["AdaHessian", "SophiaH"])
def test_optimizers_of_a_package_that_differentiate_gradients_run(name: str) -> None:
    package = pytest.importorskip("pytorch_optimizer")
    spec = OptimizerSpec(name.lower(), getattr(package, name), create_graph=True, version=1)
    run = optiscope.run("digits_mlp", spec, epochs=1, threads=1)
    assert run.status == "finished", run.reason
    run = optiscope.run("digits_mlp", f"pytorch_optimizer:{name}", epochs=1, threads=1)
    assert "create_graph=True" in run.reason


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{HERE}:Plain", "the class Plain, which is not a subclass of torch.optim.Optimizer"),
        ("./myopts.py:Lion", "name the module without .py, myopts:Lion, and run from the project"),
        ("myopts.py:Lion", "name the module without .py, myopts:Lion"),
        ("code/myopts.py:Lion", "myopts:Lion, and run from folder code"),
    ],
)
def test_paths_that_lead_to_no_optimizer_say_what_to_write(path: str, message: str) -> None:
    with pytest.raises(UnknownOptimizerError, match=message) as caught:
        registry.get(path)
    assert "\n" not in str(caught.value)


def test_a_factory_that_makes_no_optimizer_is_refused() -> None:
    with pytest.raises(BadSettingsError, match=r"it makes \[.*and no torch.optim.Optimizer"):
        bind(f"{HERE}:list_factory", {})


def test_a_spec_cannot_want_a_closure_and_a_graph() -> None:
    with pytest.raises(ValueError, match="got both"):
        OptimizerSpec("x", torch.optim.SGD, closure=True, create_graph=True)
    assert issubclass(UnknownOptimizerError, OptiscopeError)


def test_trying_an_optimizer_draws_nothing_from_the_generator() -> None:
    before = torch.get_rng_state()
    bind("adam", {})
    assert torch.equal(before, torch.get_rng_state())
