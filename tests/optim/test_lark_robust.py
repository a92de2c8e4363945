"""Lark on hard input: scales of the loss, zero and non-finite gradients, odd shapes, models."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optiscope.optim.lark import factors
from optiscope.optim.lark.optimizer import Lark


def classifier(dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 4)).to(dtype)


def clusters(
    steps: int, size: int, dtype: torch.dtype = torch.float32
) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(4, 10, generator=generator, dtype=dtype)
    found = []
    for _ in range(steps):
        y = torch.randint(4, (size,), generator=generator)
        noise = 0.5 * torch.randn(size, 10, generator=generator, dtype=dtype)
        found.append((centres[y] + noise, y))
    return found


def trained(
    model: nn.Module, data: list[tuple[Tensor, Tensor]], scale: float = 1.0, **settings: float
) -> list[float]:
    optimizer = Lark(model.parameters(), **settings)
    losses = []
    for x, y in data:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        (scale * loss).backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("scale", [2.0**20, 2.0**-20])
def test_a_loss_scaled_by_a_power_of_two_gives_the_same_bits(scale: float) -> None:
    model = classifier()
    other = copy.deepcopy(model)
    trained(model, clusters(40, 8), total_steps=40)
    trained(other, clusters(40, 8), scale, total_steps=40)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("scale", [1e6, 1e-6, 1e15, 1e-15])
def test_a_scaled_loss_gives_the_same_trajectory_up_to_rounding(scale: float) -> None:
    model = classifier(torch.float64)
    other = copy.deepcopy(model)
    data = clusters(40, 8, torch.float64)
    trained(model, data, total_steps=40)
    trained(other, data, scale, total_steps=40)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 8, 256])
def test_any_batch_size_learns(size: int, dtype: torch.dtype) -> None:
    model = classifier(dtype)
    losses = trained(model, clusters(80, size, dtype), total_steps=80)
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])


def test_the_full_batch_learns() -> None:
    losses = trained(classifier(), clusters(1, 500) * 80, total_steps=80)
    assert losses[-1] < 0.1 * losses[0]


def test_a_sudden_change_of_the_data_is_survived() -> None:
    data = clusters(60, 32)
    swapped = [(3.0 * x.flip(1), (y + 1) % 4) for x, y in data]
    losses = trained(classifier(), data + swapped, total_steps=120)
    assert max(losses[60:65]) > 1
    assert sum(losses[-10:]) / 10 < 0.3


def test_a_zero_gradient_leaves_its_parameter_and_the_others_move() -> None:
    still, moving = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(4, 6))
    bias = nn.Parameter(torch.randn(4))
    optimizer = Lark([still, moving, bias])
    for step in range(30):
        silent = 5 <= step < 25
        before = still.detach().clone(), moving.detach().clone(), bias.detach().clone()
        still.grad = torch.zeros(4, 6) if silent else torch.randn(4, 6)
        bias.grad = torch.zeros(4) if silent else torch.randn(4)
        moving.grad = torch.randn(4, 6)
        optimizer.step()
        assert torch.equal(still, before[0]) == silent
        assert torch.equal(bias, before[2]) == silent
        assert not torch.equal(moving, before[1])


def test_a_gradient_that_is_zero_from_the_start_is_survived() -> None:
    weight = nn.Parameter(torch.randn(40, 50))
    optimizer = Lark([weight])
    before = weight.detach().clone()
    for _ in range(12):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    assert torch.equal(weight, before)
    for _ in range(30):
        weight.grad = weight.detach().clone()
        optimizer.step()
    assert weight.isfinite().all()
    assert weight.norm() < before.norm()


def test_a_constant_gradient_moves_straight_on() -> None:
    weight = nn.Parameter(torch.zeros(40, 50))
    gradient = torch.randn(40, 50)
    optimizer = Lark([weight])
    for _ in range(300):
        weight.grad = gradient
        optimizer.step()
    moved = -weight.detach()
    assert weight.isfinite().all()
    assert (moved * gradient).sum() > 0
    assert optimizer.get_log()[0].length == pytest.approx(0.5)  # nothing opposes: the longest


@pytest.mark.parametrize(
    ("lr", "shortest"),
    [(1.0, 0.01), (0.25, 0.01), (4.0, 0.0025), (torch.tensor(4.0, dtype=torch.float64), 0.0025)],
)
def test_steps_against_a_gradient_that_turns_every_time_shrink_to_the_shortest(
    lr: float | torch.Tensor, shortest: float
) -> None:
    """Which is 0.01 as the step is taken, lr included, where lr is above one."""
    weight = nn.Parameter(torch.zeros(6, 8))
    optimizer = Lark([weight], lr=lr, momentum=0.0, renew_every=1)
    gradient = torch.randn(6, 8)
    for step in range(300):
        weight.grad = gradient * (-1) ** step
        optimizer.step()
    assert optimizer.get_log()[0].length == pytest.approx(shortest)
    assert optimizer.state[weight]["log_length"].dtype == torch.float32


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_reported(bad: float) -> None:
    model = classifier()
    optimizer = Lark(model.parameters(), total_steps=50)
    data = clusters(20, 8)
    for x, y in data[:10]:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    weights, state = copy.deepcopy((list(model.parameters()), optimizer.state_dict()["state"]))
    model[2].bias.grad[1] = bad
    with pytest.warns(RuntimeWarning, match="got inf or nan in 1 step"):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), weights, strict=True))
    for place, kept in optimizer.state_dict()["state"].items():
        assert all(torch.equal(kept[name], state[place][name]) for name in kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x, y in data[10:]:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()


def test_ten_bad_gradients_in_a_row_end_training() -> None:
    model = classifier()
    optimizer = Lark(model.parameters(), total_steps=50)
    bad = [torch.full_like(p, float("nan")) for p in model.parameters()]
    good = [torch.ones_like(p) for p in model.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for gradients in [*[bad] * 9, good, *[bad] * 9]:
            for p, gradient in zip(model.parameters(), gradients, strict=True):
                p.grad = gradient
            optimizer.step()
        with pytest.raises(FloatingPointError, match="10 batches in a row"):
            optimizer.step()


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU treated as a device whose answers must not be waited for."""
    monkeypatch.setattr(factors, "asking_is_free", lambda device: False)


@pytest.mark.usefixtures("queued")
def test_without_asking_a_bad_gradient_changes_nothing_and_is_reported_later() -> None:
    model = classifier()
    optimizer = Lark(model.parameters(), total_steps=50, renew_every=50)
    data = clusters(12, 8)
    for x, y in data:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    weights, state = copy.deepcopy((list(model.parameters()), optimizer.state_dict()["state"]))
    model[0].weight.grad[1, 2] = float("nan")
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), weights, strict=True))
    with pytest.warns(RuntimeWarning, match="got inf or nan in 1 step"):
        kept = optimizer.state_dict()["state"]
    for place, held in kept.items():
        changed = [name for name in held if not torch.equal(held[name], state[place][name])]
        assert changed == (["step"] if "momentum" in held else [])  # its turn is used up


def test_without_asking_the_same_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clusters(60, 32)
    model = classifier()
    other = copy.deepcopy(model)
    losses = trained(model, data, total_steps=60)
    monkeypatch.setattr(factors, "asking_is_free", lambda device: False)
    queued_losses = trained(other, data, total_steps=60)
    assert queued_losses[-1] < 0.5 * queued_losses[0]
    assert queued_losses[-1] == pytest.approx(losses[-1], rel=0.2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 2, 5, 5), (70, 40)])
def test_every_shape_finds_its_minimum(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.randn(*shape, dtype=torch.float64))
    target = torch.randn(*shape, dtype=torch.float64)
    optimizer = Lark([weight], total_steps=400, rank=64)  # above some dimensions, below none
    before = (weight.detach() - target).norm()
    for _ in range(400):
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    assert (weight.detach() - target).norm() < 0.05 * before


@pytest.mark.parametrize("shape", [(), (1,), (7,)])
def test_vectors_alone_move_at_the_first_length(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    target = weight.detach() + 0.1
    optimizer = Lark([weight], total_steps=400)
    for _ in range(400):
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), target, rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_entries_of_vectors_never_move_far_however_small_their_gradients(seed: int) -> None:
    """By Cauchy and Schwarz at most sqrt(sum 0.1^2 0.81^k / (0.01 0.99^k)) < 2.4 lengths."""
    generator = torch.Generator().manual_seed(seed)
    weight = nn.Parameter(torch.zeros(50))
    optimizer = Lark([weight])
    scale = torch.rand(50, generator=generator) * 45 - 40  # of gradients from 1e-40 to 1e5
    for step in range(60):
        before = weight.detach().clone()
        drift = -0.5 * step * torch.rand(50, generator=generator)
        weight.grad = torch.randn(50, generator=generator) * 10 ** (scale + drift)
        optimizer.step()
        assert (weight.detach() - before).abs().max() <= 2.4 * 0.2 * 0.01


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.cells = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.cells(self.embed(x))[0])
        return out


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(self.embed(x)))
        return out


@pytest.mark.parametrize("make", [Recurrent, Attention])
def test_models_of_sequences_learn(make: type[nn.Module]) -> None:
    """Each token decides its successor."""
    model = make()
    optimizer = Lark(model.parameters(), total_steps=100)
    following = torch.randperm(12)
    losses = []
    for _ in range(100):
        x = torch.randint(12, (16, 10))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, 1), following[x].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_an_autoencoder_with_sampled_codes_learns() -> None:
    encoder, decoder = nn.Linear(20, 8), nn.Linear(4, 20)
    optimizer = Lark([*encoder.parameters(), *decoder.parameters()], total_steps=150)
    mixing = torch.randn(2, 20)
    losses = []
    for _ in range(150):
        x = torch.randn(64, 2) @ mixing
        mean, log_variance = encoder(x).chunk(2, dim=1)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        optimizer.zero_grad()
        loss = (decoder(code) - x).square().sum(1).mean() + divergence
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_stacked_layers_move_as_single_ones() -> None:
    """Layers of equal shape are treated at once; alone they move the same."""
    together = [nn.Parameter(torch.randn(6, 9)) for _ in range(3)]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    stacked = Lark(together, total_steps=40)
    single = [Lark([p], total_steps=40) for p in alone]
    for _ in range(25):
        for p, q, optimizer in zip(together, alone, single, strict=True):
            p.grad = torch.randn(6, 9)
            q.grad = p.grad.clone()
            optimizer.step()
        stacked.step()
    for p, q in zip(together, alone, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
