"""Kinds of models and of training loops the preconditioner has to live with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from optiscope.optim.preconditioner.variants import AdaptiveSGD, PreconditionedSGD

SMALL: dict[str, Any] = {"est_rank": 2, "num_observations": 3, "prior_iterations": 3}
STEPS = 12


class Tied(nn.Module):
    """Language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.out = nn.Linear(6, 7)
        self.out.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.table(x).mean(dim=1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 6, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.block(x).mean(dim=1))


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "batch norm and dropout": (normalised, lambda: torch.randn(16, 4)),
    "tied weights": (Tied, lambda: torch.randint(7, (16, 5))),
    "recurrent": (Recurrent, lambda: torch.randn(16, 5, 4)),
    "attention": (Attentive, lambda: torch.randn(16, 5, 8)),
}


def train(
    model: nn.Module,
    opt: Any,
    x: Tensor,
    forward: Callable[[Tensor], Tensor] | None = None,
    steps: int = STEPS,
) -> float:
    """Loss of the last of so many steps on one batch, by closure."""
    y = torch.arange(len(x)) % 3
    loss = torch.zeros(())
    for _ in range(steps):

        def closure() -> Tensor:
            opt.zero_grad()
            out = (forward or model)(x)
            value = functional.cross_entropy(out.float(), y)
            value.backward()
            return value

        loss = opt.step(closure)
    return float(loss.detach())


@pytest.mark.parametrize("hessian", ["exact", "difference", "auto"])
@pytest.mark.parametrize("name", MODELS)
def test_models_train_by_closure(name: str, hessian: str) -> None:
    make, inputs = MODELS[name]
    model, x = make(), inputs()
    opt = PreconditionedSGD(model.parameters(), **SMALL, hessian=hessian)
    last = train(model, opt, x, steps=30)
    log = opt.get_log()
    assert log["estimates"] > 0
    assert last < 1.1
    assert all(0 < r < 100 for r in log["step_size"])


@pytest.mark.parametrize("name", ["batch norm and dropout", "tied weights", "recurrent"])
def test_models_train_in_a_plain_loop(name: str) -> None:
    make, inputs = MODELS[name]
    model, x = make(), inputs()
    y = torch.arange(len(x)) % 3
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    for _ in range(STEPS):
        opt.zero_grad()
        opt.backward(functional.cross_entropy(model(x), y))
        opt.step()
    assert opt.get_log()["estimates"] > 0


def test_running_statistics_move_once_a_step() -> None:
    model, x = normalised(), torch.randn(16, 4)
    opt = AdaptiveSGD(model.parameters(), **SMALL, hessian="difference")
    train(model, opt, x)
    assert int(model[1].num_batches_tracked) == STEPS
    torch.manual_seed(1)
    model, other = normalised(), normalised()
    other.load_state_dict(model.state_dict())
    frozen = dict(SMALL, prior_iterations=20, update_while_estimating=False)
    train(model, AdaptiveSGD(model.parameters(), **frozen, hessian="difference"), x, steps=5)
    for _ in range(5):
        other(x)
    assert torch.equal(model[1].running_mean, other[1].running_mean)
    assert torch.equal(model[1].running_var, other[1].running_var)


def test_dropout_masks_are_those_of_plain_training() -> None:
    """Estimation draws no random numbers of its own: the stream stays that of plain SGD."""
    x = torch.randn(16, 4)
    states = []
    for hessian in ("exact", "difference", None):
        torch.manual_seed(2)
        model = normalised()
        torch.manual_seed(3)
        if hessian is None:
            opt: Any = torch.optim.SGD(model.parameters(), lr=0.01)
        else:
            opt = AdaptiveSGD(model.parameters(), **SMALL, hessian=hessian)
        train(model, opt, x, steps=8)
        states.append(torch.get_rng_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_missing_second_derivatives_are_explained_in_a_plain_loop() -> None:
    q = torch.randn(1, 1, 4, 8, requires_grad=True)
    opt = PreconditionedSGD([q], **SMALL)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        loss = functional.scaled_dot_product_attention(q, q, q).square().sum()
    opt.backward(loss)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        opt.step()


def test_bfloat16_autocast() -> None:
    model, x = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)), torch.randn(24, 4)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out: Tensor = model(x)
        return out

    for hessian in ("exact", "difference"):
        opt = PreconditionedSGD(model.parameters(), **SMALL, hessian=hessian)
        first = train(model, opt, x, forward, 1)
        assert train(model, opt, x, forward, 40) < first
        assert opt.get_log()["estimates"] > 0


def test_gradient_scaler_changes_nothing() -> None:
    x = torch.randn(24, 4)
    y = torch.arange(24) % 3
    finals, rates = [], []
    for enabled in (False, True):
        torch.manual_seed(4)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        opt = PreconditionedSGD(model.parameters(), **SMALL)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=enabled)
        for _ in range(STEPS):
            opt.zero_grad()
            opt.backward(functional.cross_entropy(model(x.double()), y), scaler=scaler)
            scaler.step(opt)
            scaler.update()
        finals.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        rates.append(opt.get_log()["step_size"][0])
    torch.testing.assert_close(finals[0], finals[1], rtol=1e-8, atol=1e-10)
    assert rates[0] == pytest.approx(rates[1])


def test_accumulated_micro_batches_equal_the_whole_batch() -> None:
    x = torch.randn(24, 4).double()
    y = torch.arange(24) % 3
    finals = []
    for parts in (1, 3):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        opt = PreconditionedSGD(model.parameters(), **SMALL)
        for _ in range(STEPS):
            opt.zero_grad()
            for xs, ys in zip(x.chunk(parts), y.chunk(parts), strict=True):
                opt.backward(functional.cross_entropy(model(xs), ys) / parts)
            opt.step()
        finals.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(finals[0], finals[1], rtol=1e-8, atol=1e-10)


def test_channels_last_gradients() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    model = model.to(memory_format=torch.channels_last)
    x = torch.randn(8, 3, 8, 8).to(memory_format=torch.channels_last)
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    first = train(model, opt, x, steps=1)
    assert train(model, opt, x, steps=30) < first


@pytest.mark.slow
def test_compiled_models_use_differences() -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    x = torch.randn(24, 4)
    compiled = torch.compile(model)
    opt = PreconditionedSGD(model.parameters(), **SMALL)
    first = train(model, opt, x, compiled, 1)
    assert train(model, opt, x, compiled, 25) < first
    assert opt.get_log()["estimates"] > 0
    assert int(model[1].num_batches_tracked) == 26
