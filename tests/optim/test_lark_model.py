"""Lark of a model: names and kernels, memory told beforehand, statistics of averaged weights."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

import optiscope
from optiscope.objective.statistics import (
    has_statistics,
    recompute_statistics,
    statistics_of_these_weights,
)
from optiscope.optim import Lark


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.across = nn.Conv1d(2, 6, 25, padding=12)  # a window that no shape tells
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.experts = nn.Parameter(torch.randn(3, 6, 40))
        self.last = nn.Linear(40, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(self.norm(self.across(x)).relu()).mean(2)
        out: Tensor = self.last((hidden @ self.experts).mean(0))
        return out


def batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        y = torch.randint(2, (16,), generator=generator)
        found.append((3 * torch.randn(16, 2, 30, generator=generator) + y.view(-1, 1, 1), y))
    return found


def train(model: nn.Module, optimizer: Lark, data: list[tuple[Tensor, Tensor]]) -> None:
    for x, y in data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_a_model_tells_names_and_kernels() -> None:
    model = Net()
    optimizer = Lark(model, total_steps=20)
    train(model, optimizer, batches(3))
    logs = {log.name: len(log.left_values) for log in optimizer.get_log()}
    assert set(logs) == {"across.weight", "last.weight", *(f"experts[{i}]" for i in range(3))}
    assert optimizer.state[model.across.weight]["momentum"].shape == (6, 50)
    assert optimizer.state[model.experts]["momentum"].shape == (3, 6, 40)


def test_a_model_without_odd_kernels_is_one_group_and_the_same_bits() -> None:
    first = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    second = copy.deepcopy(first)
    for model, params in ((first, first), (second, second.parameters())):
        optimizer = Lark(params, total_steps=10)
        assert len(optimizer.param_groups) == 1
        generator = torch.Generator().manual_seed(0)
        for _ in range(10):
            optimizer.zero_grad()
            model(torch.randn(5, 4, generator=generator)).square().sum().backward()
            optimizer.step()
    assert all(map(torch.equal, first.parameters(), second.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("total", [20, None])
def test_memory_is_what_the_state_then_takes(total: int | None, dtype: torch.dtype) -> None:
    model = Net().to(dtype)
    optimizer = Lark(model, total_steps=total)
    told = optimizer.memory()
    assert not optimizer.state
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    held = sum(v.numel() * v.element_size() for s in optimizer.state.values() for v in s.values())
    assert told.state == held
    assert told.parameters == sum(p.numel() * p.element_size() for p in model.parameters())
    assert told.total >= told.state
    assert "times the parameters" in str(told)


def exact_statistics(model: Net, data: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Means over the batches of each batch's mean and unbiased variance."""
    outputs = [model.across(x).transpose(0, 1).flatten(1) for x, _ in data]
    means = torch.stack([o.mean(1) for o in outputs])
    return means.mean(0), torch.stack([o.var(1) for o in outputs]).mean(0)


@pytest.mark.parametrize("made_of", ["model", "parameters"])
def test_eval_with_batches_gives_the_averaged_weights_their_own_statistics(made_of: str) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = Lark(model if made_of == "model" else model.parameters())
    data = batches(40)
    train(model, optimizer, data)
    before = copy.deepcopy(model.state_dict())
    optimizer.eval(data, model=None if made_of == "model" else model)
    mean, variance = exact_statistics(model, data)
    torch.testing.assert_close(model.norm.running_mean, mean)
    torch.testing.assert_close(model.norm.running_var, variance)
    assert not torch.allclose(before["norm.running_mean"], mean, rtol=1e-3)
    assert model.norm.momentum == 0.1
    assert model.training
    assert model.drop.training
    optimizer.train()
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_with_total_steps_statistics_stay() -> None:
    model = Net()
    optimizer = Lark(model, total_steps=20)
    train(model, optimizer, batches(20))
    before = copy.deepcopy(model.state_dict())
    optimizer.eval(batches(3))
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())


def test_batches_without_a_model_and_no_batches_are_explained() -> None:
    model = Net()
    optimizer = Lark(model.parameters())
    train(model, optimizer, batches(2))
    with pytest.raises(ValueError, match="expected a model whose statistics to recompute"):
        optimizer.eval(batches(1))
    with pytest.raises(ValueError, match="expected at least one batch"):
        recompute_statistics(model, [])


def test_statistics_are_put_back_also_after_an_exception() -> None:
    model = Net()
    assert has_statistics(model)
    assert not has_statistics(nn.Linear(2, 2))
    before = copy.deepcopy(model.state_dict())

    def fail() -> None:
        with statistics_of_these_weights(model, batches(3)):
            assert not torch.equal(model.norm.running_mean, before["norm.running_mean"])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())
    assert model.norm.momentum == 0.1


@pytest.mark.slow
def test_the_loop_scores_averaged_weights_with_their_own_statistics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Test loss of averaged weights under batch norm, with and without."""
    with_them = optiscope.run(
        "digits_resnet", "lark", hyperparameters={"horizon": None}, seed=2, epochs=10, threads=1
    )
    monkeypatch.setattr("optiscope.train.step.has_statistics", lambda model: False)
    without = optiscope.run(
        "digits_resnet", "lark", hyperparameters={"horizon": None}, seed=2, epochs=10, threads=1
    )
    assert with_them.final["test_loss"] < 0.9 * without.final["test_loss"]
    same = [[m.value for m in run.metrics if m.split == "batch"] for run in (with_them, without)]
    assert same[0] == same[1]


def test_a_scheduler_made_for_learning_rates_is_noticed_and_a_warmup_is_not() -> None:
    def run(peak: float, warmup: int) -> list[str]:
        model = nn.Linear(3, 2)
        optimizer = Lark(model, total_steps=200)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: peak * min(1.0, (step + 1) / warmup)
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(120):
                model(torch.ones(1, 3)).sum().backward()
                optimizer.step()
                schedule.step()
        return [str(w.message) for w in caught if "factor on the built-in length" in str(w.message)]

    assert len(run(0.01, 50)) == 1
    assert run(1.0, 100) == []


def evaluated(model: nn.Module) -> list[str]:
    """What is said when a model is evaluated."""
    was = model.training
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        model.eval()(batches(1)[0][0])
        model.train(was)
    return [str(w.message) for w in caught if "optimizer.eval()" in str(w.message)]


def test_a_forgotten_eval_is_noticed_once() -> None:
    model = Net()
    optimizer = Lark(model)
    assert evaluated(model) == []  # nothing is trained yet
    train(model, optimizer, batches(3))
    said = evaluated(model)
    assert len(said) == 1
    assert "the weights to use are an average" in said[0]
    assert evaluated(model) == []
    assert not model._forward_pre_hooks


def test_no_eval_is_missed_where_none_is_needed() -> None:
    model = Net()
    optimizer = Lark(model)
    train(model, optimizer, batches(3))
    model.eval()
    train(model, optimizer, batches(3))  # with frozen statistics
    optimizer.eval()
    assert evaluated(model) == []
    optimizer.train()
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert evaluated(copied) == []  # nobody trains the copy
    del optimizer
    assert evaluated(model) == []
    whole = Net()
    train(whole, Lark(whole, total_steps=3), batches(3))
    assert evaluated(whole) == []
