"""First-order optimizers by name take the steps of the classes they stand for."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optiscope.optim import registry
from optiscope.optim.baselines.first_order import MissingExtraError
from optiscope.optim.baselines.muon import MuonWithAdamW

Parameters = list[nn.Parameter]


def model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.Flatten(),
        nn.Linear(8, 6),
        nn.Tanh(),
        nn.Linear(6, 5),
        nn.Tanh(),
        nn.Linear(5, 3),
    )


def steps(network: nn.Module, optimizer: Any, count: int = 8, begin: int = 0) -> list[Tensor]:
    """Parameters after some steps on batches that depend on the step only."""
    for step in range(begin, begin + count):
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(16, 1, 4, 4, generator=generator)
        targets = torch.randint(3, (16,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    return [p.detach().clone() for p in network.parameters()]


def equal(these: list[Tensor], those: list[Tensor]) -> bool:
    return all(map(torch.equal, these, those))


optim = torch.optim
TWINS: list[tuple[str, dict[str, Any], Callable[[Parameters], optim.Optimizer]]] = [
    ("sgd", {"lr": 0.1}, lambda p: optim.SGD(p, lr=0.1)),
    ("momentum", {"lr": 0.1}, lambda p: optim.SGD(p, lr=0.1, momentum=0.9)),
    ("nesterov", {"lr": 0.1}, lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
    ("adam", {"lr": 0.01}, lambda p: optim.Adam(p, lr=0.01)),
    ("adam", {"lr": 0.01, "beta1": 0.5}, lambda p: optim.Adam(p, lr=0.01, betas=(0.5, 0.999))),
    ("adam", {"lr": 0.01, "beta2": 0.9}, lambda p: optim.Adam(p, lr=0.01, betas=(0.9, 0.9))),
    ("adam", {"betas": [0.5, 0.9]}, lambda p: optim.Adam(p, betas=(0.5, 0.9))),
    ("adamw", {"lr": 0.01}, lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.01)),
    ("nadam", {"lr": 0.01}, lambda p: optim.NAdam(p, lr=0.01)),
    ("radam", {"lr": 0.01}, lambda p: optim.RAdam(p, lr=0.01)),
    ("adamax", {"lr": 0.01}, lambda p: optim.Adamax(p, lr=0.01)),
    ("adagrad", {"lr": 0.01}, lambda p: optim.Adagrad(p, lr=0.01)),
    ("adadelta", {"lr": 1.0}, lambda p: optim.Adadelta(p, lr=1.0)),
    ("adafactor", {"lr": 0.01}, lambda p: optim.Adafactor(p, lr=0.01)),
    ("rmsprop", {"lr": 0.01}, lambda p: optim.RMSprop(p, lr=0.01)),
    ("rprop", {"lr": 0.01}, lambda p: optim.Rprop(p, lr=0.01)),
    ("asgd", {"lr": 0.01}, lambda p: optim.ASGD(p, lr=0.01)),
]


@pytest.mark.parametrize(
    ("name", "settings", "make"), TWINS, ids=[f"{name} {settings}" for name, settings, _ in TWINS]
)
def test_a_name_takes_the_steps_of_its_class(
    name: str, settings: dict[str, Any], make: Callable[[Parameters], optim.Optimizer]
) -> None:
    by_name, by_class = model(), model()
    groups = [{"params": list(by_name.parameters())}]
    named = registry.bind(name, settings)(groups, horizon=8, steps_per_epoch=8)
    other = make(list(by_class.parameters()))
    assert type(named) is type(other)
    assert equal(steps(by_name, named), steps(by_class, other))


@pytest.mark.parametrize(
    ("name", "package", "attribute", "settings"),
    [
        ("schedulefree_sgd", "schedulefree", "SGDScheduleFree", {"lr": 0.1}),
        ("schedulefree_adamw", "schedulefree", "AdamWScheduleFree", {"lr": 0.0025}),
        ("prodigy", "prodigyopt", "Prodigy", {}),
        ("dadapt_sgd", "dadaptation", "DAdaptSGD", {}),
        ("dadapt_adam", "dadaptation", "DAdaptAdam", {}),
    ],
)
def test_a_name_from_another_package_takes_the_steps_of_its_class(
    name: str, package: str, attribute: str, settings: dict[str, Any]
) -> None:
    found = getattr(pytest.importorskip(package), attribute)
    by_name, by_class = model(), model()
    groups = [{"params": list(by_name.parameters())}]
    named = registry.bind(name, settings)(groups, horizon=8, steps_per_epoch=8)
    other = found(list(by_class.parameters()), **settings)
    assert type(named) is type(other)
    for optimizer in (named, other):
        if callable(getattr(optimizer, "train", None)):
            optimizer.train()
    assert equal(steps(by_name, named), steps(by_class, other))


@pytest.mark.parametrize("name", ["schedulefree_sgd", "prodigy", "dadapt_adam"])
def test_a_package_that_is_not_there_says_how_to_get_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.import_module

    def without(module: str, *arguments: Any) -> Any:
        if module in ("schedulefree", "prodigyopt", "dadaptation"):
            raise ModuleNotFoundError(name=module)
        return found(module, *arguments)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'optiscope\[optimizers\]'") as caught:
        registry.bind(name, {"lr": 1.0})
    assert "\n" not in str(caught.value)


def by_hand(network: nn.Module, lr: float) -> list[optim.Optimizer]:
    """Muon on the hidden matrices of ``model()``, AdamW on the rest."""
    conv, first, second, last = (network[i] for i in (0, 2, 4, 6))  # type: ignore[index]
    hidden = [first.weight, second.weight]
    rest = [conv.weight, conv.bias, first.bias, second.bias, last.weight, last.bias]
    return [
        optim.Muon(hidden, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        optim.AdamW(rest, lr=lr, weight_decay=0.0),
    ]


class Together:
    """Two optimizers that step together."""

    def __init__(self, optimizers: list[optim.Optimizer]) -> None:
        self.optimizers = optimizers

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()


def test_muon_is_for_hidden_matrices_and_adamw_for_the_rest() -> None:
    one, two = model(), model()
    together = steps(two, Together(by_hand(two, 0.02)))
    assert equal(steps(one, MuonWithAdamW(one.parameters(), lr=0.02)), together)


def test_muon_with_groups_keeps_their_settings() -> None:
    network = model()
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "name": "weights", "weight_decay": 0.5},
        {"params": others, "name": "others", "lr": 0.001},
    ]
    optimizer = MuonWithAdamW(groups, lr=0.02)
    found = [
        (g["name"], g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups
    ]
    assert found == [
        ("weights", 0.02, 0.5, 2),
        ("weights", 0.02, 0.5, 2),
        ("others", 0.001, 0.0, 4),
    ]
    taken = [p for g in optimizer.param_groups for p in g["params"]]
    assert sorted(map(id, taken)) == sorted(map(id, network.parameters()))


@pytest.mark.parametrize(
    "network",
    [nn.Linear(3, 2), nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Linear(3, 2, bias=False)],
    ids=["one matrix", "no matrix", "one matrix alone"],
)
def test_muon_without_hidden_matrices_is_adamw(network: nn.Module) -> None:
    optimizer = MuonWithAdamW(network.parameters(), lr=0.1)
    twin = copy.deepcopy(network)
    adamw = optim.AdamW(twin.parameters(), lr=0.1, weight_decay=0.0)
    for p, q in zip(network.parameters(), twin.parameters(), strict=True):
        p.grad = torch.ones_like(p)
        q.grad = torch.ones_like(q)
    optimizer.step()
    adamw.step()
    assert equal(list(network.parameters()), list(twin.parameters()))


def test_muon_is_saved_and_goes_on_as_if_nothing_had_been() -> None:
    one, two = model(), model()
    first = MuonWithAdamW(one.parameters(), lr=0.02)
    steps(one, first, 4)
    saved = copy.deepcopy(first.state_dict())
    two.load_state_dict(one.state_dict())
    second = MuonWithAdamW(two.parameters(), lr=0.5)
    second.load_state_dict(saved)
    assert [g["lr"] for g in second.param_groups] == [0.02, 0.02]
    assert equal(steps(two, second, 4, begin=4), steps(one, first, 4, begin=4))


def test_a_copy_of_muon_goes_on_alone() -> None:
    network = model()
    optimizer = MuonWithAdamW(network.parameters(), lr=0.02)
    steps(network, optimizer, 3)
    twin, its_optimizer = copy.deepcopy((network, optimizer))
    assert its_optimizer.param_groups[0]["params"][0] is not optimizer.param_groups[0]["params"][0]
    after = steps(network, optimizer, 3, begin=3)
    assert not equal(list(twin.parameters()), after)
    assert equal(steps(twin, its_optimizer, 3, begin=3), after)


def test_muon_takes_no_group_once_it_is_made() -> None:
    optimizer = MuonWithAdamW(model().parameters(), lr=0.02)
    with pytest.raises(ValueError, match="make a new one"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, 2))]})


def test_a_schedule_acts_on_both_of_muons_parts() -> None:
    network = model()
    optimizer = MuonWithAdamW(network.parameters(), lr=0.02)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    before = steps(network, optimizer, 1)
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.0, 0.0]
    assert equal(steps(network, optimizer, 1, begin=1), before)


def test_muon_takes_a_closure_and_returns_its_loss() -> None:
    network = nn.Linear(2, 1)
    optimizer = MuonWithAdamW(network.parameters(), lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = network(torch.ones(1, 2)).square().sum()
        loss.backward()
        return float(loss.detach())

    with torch.no_grad():
        first = optimizer.step(closure)
    assert first is not None
    assert first > closure()
