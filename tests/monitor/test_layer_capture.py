"""Gradient tests from the run's own backward pass equal those of a pass of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import optiscope
from optiscope.monitor.gradient_tests import gradient_tests
from optiscope.monitor.per_sample import sample_gram


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        n = tokens.shape[1]
        mask = torch.triu(torch.full((n, n), float("-inf"), dtype=torch.float64), 1)
        h = self.embed(tokens)
        h = h + self.mix(h, h, h, attn_mask=mask, need_weights=False)[0]
        out: Tensor = self.head(self.norm(h)).mean(1)
        return out


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(inplace=True), nn.Linear(9, 4))


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 3), nn.Tanh(), nn.Flatten(),
                         nn.Linear(12, 4))  # fmt: skip


def normalized() -> nn.Module:  # batch statistics: no gradient of a sample alone
    return nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 4))


MODELS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "dense": (dense, True),
    "convolutional": (convolutional, True),
    "attention": (Attention, True),
    "one layer": (lambda: nn.Linear(6, 4), False),
    "batch norm": (normalized, False),
}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", MODELS)
def test_equals_a_pass_of_its_own(
    name: str, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, captures = MODELS[name]
    torch.manual_seed(0)
    model = make().double()
    criterion = nn.CrossEntropyLoss(reduction=reduction)
    x = torch.randn(21, 6, dtype=torch.float64)
    if name == "attention":
        x = torch.randint(0, 11, (21, 7))  # a mask [7, 7] beside batches of 21
    y = torch.randint(0, 4, (21,))
    expected = gradient_tests(
        sample_gram(model, criterion, (x[:16], y[:16]), reduction=reduction), rate=0.1
    ).values()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    if captures:  # no second call of the model
        monkeypatch.setattr("optiscope.monitor.noise_measures.sample_gram", None)
    with optiscope.watch(
        model, optimizer, criterion, instruments=["gradient tests"], every=1, budget=1.0,
        rules="none",
    ) as watch:  # fmt: skip
        criterion(model(x), y).backward()
        optimizer.step()
        assert not watch.failures
        assert all(not m._forward_hooks for m in model.modules() if m is not model)
    assert not model._forward_hooks
    for figure in ("norm", "inner_product", "orthogonality", "variance", "noise_scale"):
        measured = watch.series.latest(figure.replace("_", " "))
        if captures and figure in expected:
            assert measured == pytest.approx(expected[figure], rel=1e-9), figure
        elif figure == "norm":
            assert measured is not None


def test_hooks_go_when_a_forward_pass_fails() -> None:
    torch.manual_seed(0)
    model = dense()
    optimizer, criterion = torch.optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss()
    with optiscope.watch(
        model, optimizer, criterion, instruments=["gradient tests"], every=1, rules="none"
    ):
        with pytest.raises(RuntimeError):
            model(torch.randn(21, 5))
        x, y = torch.randn(21, 6), torch.randint(0, 4, (21,))
        criterion(model(x), y).backward()
        optimizer.step()
    assert not any(m._forward_hooks for m in model.modules())
