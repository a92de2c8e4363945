"""Optimizers by name, by import path, as a class or as a spec; bad settings in one line."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from optiscope.optim import registry
from optiscope.optim.registry import BadSettingsError, UnknownOptimizerError, bind, get
from optiscope.optim.spec import Choice, OptimizerSpec, Range

NAMES = registry.names()
EXTRAS = {
    "schedulefree": "schedulefree",
    "prodigy": "prodigyopt",
    "dadapt": "dadaptation",
    "soap": "pytorch_optimizer",
    "shampoo": "pytorch_optimizer",
    "psgd": "pytorch_optimizer",
}


def need_package(name: str) -> None:
    package = EXTRAS.get(name.partition("_")[0])
    if package is not None:
        pytest.importorskip(package)


def middle_of(spec: OptimizerSpec) -> dict[str, Any]:
    """The middle of the range of rates, for optimizers that must be given one."""
    rate = spec.space.get("lr")
    return {"lr": math.sqrt(rate.low * rate.high)} if isinstance(rate, Range) else {}


class Horizon(torch.optim.SGD):
    """Wants to know how long it has."""

    def __init__(self, params: Any, lr: float = 0.1, total: int = 0, per_epoch: int = 0) -> None:
        super().__init__(params, lr)
        self.told = (total, per_epoch)


class Needy(torch.optim.Optimizer):
    """Takes a closure and anything else."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, settings)

    def step(self, closure: Any) -> Any:  # type: ignore[override]
        return closure()


class Broken(torch.optim.SGD):
    def __init__(self, params: Any, lr: float = 0.1) -> None:
        raise KeyError("a\nbug")


HORIZON = OptimizerSpec("told", Horizon, horizon="total", steps_per_epoch="per_epoch")
NOT_AN_OPTIMIZER = 3


def test_names_are_unique_and_in_one_style() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 20
    assert all(name == name.lower() and name.isidentifier() for name in NAMES)
    assert NAMES[:5] == ["sgd", "momentum", "nesterov", "adam", "adamw"]


def test_every_first_order_optimizer_of_torch_has_a_name() -> None:
    from torch.optim import lr_scheduler

    assert lr_scheduler is not None
    classes = {
        name.lower()
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    }
    # Sparse gradients have no problem here; LBFGS is reached by import path.
    assert classes - {"optimizer", "sparseadam", "lbfgs"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_and_every_corner_of_its_space_are_accepted(name: str) -> None:
    need_package(name)
    spec = registry.get(name)
    assert spec.source
    bind(name, middle_of(spec))
    for key, dimension in spec.space.items():
        values = (
            dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        )
        for value in values:
            bind(name, {key: value})
        if key == "lr":
            assert isinstance(dimension, Range)
            assert dimension.log


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_takes_its_probe_downhill(name: str) -> None:
    need_package(name)
    spec = registry.get(name)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    inputs = torch.randn(64, 3)
    targets = inputs.argmax(1)
    groups = [{"params": list(model.parameters())}]
    count = 300 if name.startswith("dadapt") else 60  # it starts from a tiny step
    optimizer = bind(name, middle_of(spec))(groups, horizon=count, steps_per_epoch=20)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        return loss

    first = closure().item()
    if callable(getattr(optimizer, "train", None)):
        optimizer.train()
    for _ in range(count):
        if spec.closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    if callable(getattr(optimizer, "eval", None)):
        optimizer.eval()
    assert closure().item() < first


BAD_RATES = [-0.1, math.nan, math.inf, "fast", True, [0.1], None]


@pytest.mark.parametrize("rate", BAD_RATES, ids=repr)
@pytest.mark.parametrize("name", [n for n in NAMES if "lr" in registry.get(n).space])
def test_a_bad_rate_is_one_line(name: str, rate: object) -> None:
    need_package(name)
    with pytest.raises(BadSettingsError) as caught:
        bind(name, {"lr": rate})
    message = str(caught.value)
    assert "lr" in message
    assert name in message
    assert repr(rate) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("sgd", {"momentun": 0.9}, ["'momentun'", "'momentum'"]),
        ("sgd", {"learning_rate": 0.9}, ["'learning_rate'", "it has lr"]),
        ("adam", {"beta3": 0.9}, ["'beta3'"]),
        ("adam", {"beta1": 0.5, "betas": [0.9, 0.99]}, ["either betas or beta1 and beta2"]),
        ("adam", {"beta1": 1.5}, ["1.5"]),
        ("adam", {"betas": 0.9}, ["betas", "a list such as [0.9, 0.999]", "got 0.9"]),
        ("adamw", {"weight_decay": -0.1}, ["weight_decay", "at least 0", "-0.1"]),
        ("sgd", {"nesterov": "yes"}, ["nesterov", "true or false", "'yes'"]),
        ("sgd", {"nesterov": True}, ["nesterov=True", "momentum"]),
        ("sgd", {"foreach": object()}, ["foreach"]),
        ("muon", {"momentum": -1.0}, ["momentum"]),
        ("muon", {"betas": [2.0, 0.9]}, ["betas"]),
        ("test_registry:Broken", {}, ["refuses its defaults", "bug"]),
        ("torch.optim:LBFGS", {"history": 3}, ["'history'", "history_size"]),
    ],
)
def test_bad_settings_are_one_line(name: str, settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(BadSettingsError) as caught:
        bind(name, settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adm", ["'adm'", "adam"]),
        ("Adam", ["'Adam'", "did you mean 'adam'"]),
        ("zzzzzz", ["'zzzzzz'", "optiscope list optimizers"]),
        ("nowhere:Adam", ["no module named 'nowhere'"]),
        ("torch.optim:Adm", ["'Adm'", "'torch.optim'"]),
        (":Adam", ["before the colon"]),
        ("torch.optim:", ["after the colon"]),
        ("..optim:Adam", ["'..optim:Adam'"]),
        ("test_registry:NOT_AN_OPTIMIZER", ["int"]),
        ("torch:nn", ["module"]),
        ("bad_module:Adam", ["SyntaxError"]),
    ],
)
def test_an_unknown_optimizer_is_one_line(
    name: str, words: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_module.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownOptimizerError) as caught:
        bind(name, {})
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_import_path_may_lead_to_a_class_or_a_spec() -> None:
    assert type(bind("test_registry:Horizon", {}).on_probe()) is Horizon
    assert bind("test_registry:HORIZON", {}).spec is HORIZON
    assert bind(Horizon, {"lr": 0.5}).spec.name == "test_registry:Horizon"
    assert bind(HORIZON, {}).spec is HORIZON


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.optim.SGD([torch.zeros(1)]), "got an instance of SGD: pass its class"),
        (lambda parameters: None, "got a function: make it the make of an OptimizerSpec"),
        (nn.Linear, "got the class Linear"),
        (0.1, "a torch.optim.Optimizer class or an OptimizerSpec, got 0.1"),
    ],
)
def test_what_is_no_optimizer_is_one_line(given: Any, words: str) -> None:
    with pytest.raises(UnknownOptimizerError, match=words):
        bind(given, {})


def test_a_class_given_as_such_is_found_again_by_its_name() -> None:
    spec = bind(Horizon, {}).spec
    assert bind(spec.name, {}).spec.make is spec.make


@pytest.mark.parametrize("name", ["lark", "preconditioned_sgd", "adaptive_sgd"])
def test_a_class_of_ours_is_the_optimizer_of_that_name(name: str) -> None:
    spec = get(name)
    assert isinstance(spec.make, type)
    assert bind(spec.make, {}).spec is spec
    assert bind(f"{spec.make.__module__}:{spec.make.__name__}", {}).spec is spec


def test_the_horizon_is_told_to_who_asks_for_it_and_can_be_overridden() -> None:
    probe = [{"params": [torch.zeros(1, requires_grad=True)]}]
    told = bind(HORIZON, {})(probe, horizon=70, steps_per_epoch=7)
    assert isinstance(told, Horizon)
    assert told.told == (70, 7)
    fixed = bind(HORIZON, {"total": 5})(probe, horizon=70, steps_per_epoch=7)
    assert isinstance(fixed, Horizon)
    assert fixed.told == (5, 7)


@pytest.mark.parametrize(
    ("name", "closure"),
    [("torch.optim:LBFGS", True), ("test_registry:Needy", True), ("torch.optim:SGD", False)],
)
def test_a_step_that_needs_a_closure_is_found_out(name: str, closure: bool) -> None:
    assert bind(name, {}).closure is closure


def test_defaults_are_passed_unless_overridden() -> None:
    assert bind("momentum", {}).on_probe().param_groups[0]["momentum"] == 0.9
    assert bind("momentum", {"momentum": 0.5}).on_probe().param_groups[0]["momentum"] == 0.5
    assert bind("nesterov", {}).on_probe().param_groups[0]["nesterov"] is True


@pytest.mark.parametrize(
    ("low", "high", "log", "words"),
    [
        (1.0, 0.5, True, "low < high"),
        (1.0, 1.0, False, "low < high"),
        (0.0, 1.0, True, "low > 0"),
        (math.nan, 1.0, False, "low < high"),
    ],
)
def test_a_range_that_cannot_be(low: float, high: float, log: bool, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Range(low, high, log)


def test_a_choice_needs_a_value() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Choice([])
