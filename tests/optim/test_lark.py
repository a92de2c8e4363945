"""Lark keeps torch's conventions: groups, saved state, modes, precision, compilation, clipping."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optiscope.optim.lark.optimizer import Lark


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 12),
        nn.ReLU(),
        nn.Linear(12, 12),
        nn.ReLU(),
        nn.Linear(12, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )


def batches(steps: int, size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Images whose mean is their class, the same in every call."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        y = torch.randint(3, (size,), generator=generator)
        yield torch.randn(size, 1, 6, 6, generator=generator) + y.view(-1, 1, 1, 1) - 1, y


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y)


def train(
    model: nn.Module,
    optimizer: Lark,
    data: Iterator[tuple[Tensor, Tensor]],
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> list[float]:
    losses = []
    for x, y in data:
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("horizon", [60, None])
def test_it_learns_with_nothing_set(horizon: int | None) -> None:
    model = network()
    optimizer = Lark(model.parameters(), total_steps=horizon)
    losses = train(model, optimizer, batches(60))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize("horizon", [40, None])
def test_saved_state_resumes_bit_for_bit(horizon: int | None) -> None:
    model = network()
    optimizer = Lark(model.parameters(), total_steps=horizon, gather_every=4)
    data = list(batches(33))
    train(model, optimizer, iter(data[:17]))
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    train(model, optimizer, iter(data[17:]))
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    again = network()
    again.load_state_dict(saved["model"])
    resumed = Lark(again.parameters(), total_steps=horizon, gather_every=4)
    resumed.load_state_dict(saved["optimizer"])
    train(again, resumed, iter(data[17:]))
    assert same(model, again)
    assert optimizer.get_log() == resumed.get_log()


def test_a_loaded_state_is_a_copy() -> None:
    model = network()
    optimizer = Lark(model.parameters())
    train(model, optimizer, batches(3))
    twin_model = copy.deepcopy(model)
    twin = Lark(twin_model.parameters())
    twin.load_state_dict(optimizer.state_dict())
    kept = copy.deepcopy(optimizer.state_dict())
    train(twin_model, twin, batches(3))
    for state, before in zip(
        optimizer.state_dict()["state"].values(), kept["state"].values(), strict=True
    ):
        assert all(torch.equal(state[name], before[name]) for name in before)


def test_a_copied_optimizer_goes_on_alike() -> None:
    model = network()
    optimizer = Lark(model.parameters(), total_steps=20)
    train(model, optimizer, batches(5))
    twin_model, twin = copy.deepcopy((model, optimizer))
    train(model, optimizer, batches(5))
    train(twin_model, twin, batches(5))
    assert same(model, twin_model)


def test_groups_have_their_own_settings_and_late_ones_share_the_clock() -> None:
    model = network()
    first, last = list(model[:-1].parameters()), list(model[-1].parameters())
    optimizer = Lark([{"params": first, "lr": 0.0, "rank": 4}], total_steps=20)
    frozen = [p.detach().clone() for p in first]
    train(model, optimizer, batches(5))
    optimizer.add_param_group({"params": last})
    train(model, optimizer, batches(5))
    assert [group["step"] for group in optimizer.param_groups] == [10, 10]
    assert all(torch.equal(p, q) for p, q in zip(first, frozen, strict=True))
    assert optimizer.get_log()[0].left_values[4:] == ()


def test_schedulers_act_on_lr() -> None:
    model = network()
    optimizer = Lark(model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step < 3))
    for x, y in batches(5):
        before = [p.detach().clone() for p in model.parameters()]
        loss_of(model, x, y).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_parameters_without_gradient_and_empty_ones_stay() -> None:
    used, unused = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4, 4))
    empty = nn.Parameter(torch.zeros(0, 4))
    optimizer = Lark([used, unused, empty])
    before = unused.detach().clone()
    (used.square().sum() + empty.sum()).backward()
    optimizer.step()
    assert torch.equal(unused, before)
    assert unused not in optimizer.state
    assert empty not in optimizer.state
    unused.grad = torch.randn(4, 4)
    optimizer.step()
    assert not torch.equal(unused, before)


def test_tied_weights_move_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.embed(x))
            return out

    model = Tied()
    optimizer = Lark(model.parameters())
    before = model.embed.weight.detach().clone()
    tokens = torch.arange(11)
    F.cross_entropy(model(tokens), tokens).backward()
    optimizer.step()
    assert len(optimizer.state) == 1
    step = (model.embed.weight.detach() - before).norm()
    assert float(step) == pytest.approx(0.01 * 11**0.5, rel=1e-4)  # sqrt(6) sqrt(11 / 6) units


def test_decay_is_decoupled_follows_the_schedule_and_leaves_vectors() -> None:
    """What a decaying matrix loses besides the step is weight_decay * 0.01 * annealing * lr."""
    pairs = []
    for decay in (0.0, 0.5):
        matrix, vector = nn.Parameter(torch.full((4, 6), 2.0)), nn.Parameter(torch.full((6,), 2.0))
        optimizer = Lark([matrix, vector], total_steps=2000, lr=3.0, weight_decay=decay)
        optimizer.param_groups[0]["step"] = 1000  # half annealed
        matrix.grad, vector.grad = torch.ones(4, 6), torch.ones(6)
        optimizer.step()
        pairs.append((matrix.detach(), vector.detach()))
    (kept, vector), (decayed, other) = pairs
    torch.testing.assert_close(kept - decayed, torch.full((4, 6), 2.0 * 0.5 * 0.01 * 0.5 * 3.0))
    assert torch.equal(vector, other)


def test_accumulated_gradients_equal_the_whole_batch() -> None:
    results = []
    for parts in (1, 4):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        optimizer = Lark(model.parameters(), total_steps=12)
        for x, y in batches(12):
            optimizer.zero_grad()
            for xs, ys in zip(x.double().chunk(parts), y.chunk(parts), strict=True):
                (loss_of(model, xs, ys) / parts).backward()
            optimizer.step()
        results.append(model)
    for p, q in zip(results[0].parameters(), results[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_clipping_to_a_tiny_norm_is_a_scale_which_no_step_depends_on() -> None:
    """Where each step knows its own gradient alone, the norm it is clipped to drops out."""
    matrices = [nn.Parameter(torch.randn(5, 8, dtype=torch.float64)) for _ in range(2)]
    matrices[1].data.copy_(matrices[0].data)
    for matrix, clipped in zip(matrices, (False, True), strict=True):
        optimizer = Lark([matrix], memory=1.0, momentum=0.0, growth=0.0)
        generator = torch.Generator().manual_seed(2)
        for _ in range(8):
            matrix.grad = torch.randn(5, 8, generator=generator, dtype=torch.float64)
            if clipped:
                nn.utils.clip_grad_norm_([matrix], 1e-3)
            optimizer.step()
    torch.testing.assert_close(matrices[0], matrices[1], rtol=1e-6, atol=1e-8)


def test_a_closure_is_called_with_gradients_on() -> None:
    model = network()
    optimizer = Lark(model.parameters())
    x, y = next(batches(1))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        return loss

    expected = loss_of(copy.deepcopy(model), x, y).item()
    assert optimizer.step(closure).item() == pytest.approx(expected)


def test_modes_exchange_the_visited_weights_and_their_average() -> None:
    model = network()
    optimizer = Lark(model.parameters())
    train(model, optimizer, batches(30))
    visited = copy.deepcopy(model)
    optimizer.eval()
    optimizer.eval()
    assert not same(model, visited)
    with pytest.raises(RuntimeError, match=r"call optimizer\.train\(\)"):
        train(model, optimizer, batches(1))
    optimizer.train()
    assert same(model, visited)


def test_with_a_horizon_modes_change_nothing_and_the_last_step_is_short() -> None:
    model = network()
    optimizer = Lark(model.parameters(), total_steps=30)
    train(model, optimizer, batches(30))
    visited = copy.deepcopy(model)
    optimizer.eval()
    assert same(model, visited)
    optimizer.train()
    with pytest.warns(RuntimeWarning, match="at most total_steps=30") as warned:
        train(model, optimizer, batches(1))
    assert warned[0].filename == train.__code__.co_filename
    assert all(
        torch.equal(p, q) for p, q in zip(model.parameters(), visited.parameters(), strict=True)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, batches(1))


@pytest.mark.parametrize("horizon", [40, None])
def test_bfloat16_parameters_learn_and_keep_precise_state(horizon: int | None) -> None:
    model = network().to(torch.bfloat16)
    optimizer = Lark(model.parameters(), total_steps=horizon)
    data = [(x.bfloat16(), y) for x, y in batches(40)]
    losses = train(model, optimizer, iter(data))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    state = optimizer.state[model[4].weight]
    assert all(value.dtype == torch.float32 for value in state.values())
    again = copy.deepcopy(model)
    resumed = Lark(again.parameters(), total_steps=horizon)
    resumed.load_state_dict(optimizer.state_dict())
    for optimizer_, model_ in ((optimizer, model), (resumed, again)):
        optimizer_.eval()
        optimizer_.train()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(model_, optimizer_, iter(data[:5]))
    assert same(model, again)


def test_autocast_with_a_gradient_scaler_learns() -> None:
    model = network()
    optimizer = Lark(model.parameters(), total_steps=80)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    losses = []
    for x, y in batches(80):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, x, y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_compiled_model_and_step_equal_the_plain_ones() -> None:
    torch._dynamo.reset()
    plain = network()
    compiled = copy.deepcopy(plain)
    train(plain, Lark(plain.parameters(), total_steps=15), batches(15))
    optimizer = Lark(compiled.parameters(), total_steps=15)
    run = torch.compile(compiled, backend="aot_eager")
    step = torch.compile(optimizer.step, backend="aot_eager")
    for x, y in batches(15):
        optimizer.zero_grad()
        loss_of(run, x, y).backward()
        step()
    for p, q in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_sparse_embedding_gradients_move_as_dense_ones() -> None:
    models = [nn.EmbeddingBag(20, 6, sparse=sparse, mode="sum") for sparse in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        optimizer = Lark(model.parameters())
        generator = torch.Generator().manual_seed(1)
        for _ in range(10):
            optimizer.zero_grad()
            chosen = torch.randint(20, (4, 3), generator=generator)
            (model(chosen) - 1).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(models[0].weight, models[1].weight, rtol=1e-4, atol=1e-5)


def test_memory_is_momentum_and_two_thin_blocks_a_factor() -> None:
    m, n, k = 300, 500, 32
    weight, bias = nn.Parameter(torch.randn(m, n)), nn.Parameter(torch.randn(m))
    optimizer = Lark([weight, bias], total_steps=10)
    weight.grad, bias.grad = torch.randn(m, n), torch.randn(m)
    optimizer.step()
    numbers = sum(value.numel() for value in optimizer.state[weight].values())
    assert numbers == m * n + 2 * k * (m + n) + 4 * k + 3
    assert sum(value.numel() for value in optimizer.state[bias].values()) == 2 * m + 1


def test_the_log_says_what_is_believed() -> None:
    model = network()
    optimizer = Lark(model.named_parameters(), total_steps=40, rank=8)
    train(model, optimizer, batches(37))
    logs = optimizer.get_log()
    assert [log.name for log in logs] == [
        name for name, p in model.named_parameters() if p.ndim > 1
    ]
    for log in logs:
        assert list(log.left_values) == sorted(log.left_values, reverse=True)
        assert 0 < log.left_rank <= 8
        assert 0 < log.right_share <= 1 + 1e-5
        assert 1e-3 < log.length < 1
        assert log.age == 6
    assert logs[1].shape == (12, 144)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr must be"),
        ({"lr": float("nan")}, "lr must be"),
        ({"lr": torch.tensor(-1.0)}, "lr must be"),
        ({"lr": torch.ones(2)}, "lr must be one number"),
        ({"total_steps": 0}, "total_steps must be"),
        ({"total_steps": 10.0}, "total_steps must be"),
        ({"weight_decay": -0.1}, "weight_decay must be"),
        ({"rank": -1}, "rank must be"),
        ({"rank": True}, "rank must be"),
        ({"full_up_to": 1.5}, "full_up_to must be"),
        ({"momentum": 1.0}, "momentum must be"),
        ({"memory": 0.5}, "memory must be"),
        ({"gather_every": 0}, "gather_every must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lark([nn.Parameter(torch.zeros(2, 2))], **settings)


def test_settings_may_be_numpys_and_are_saved_as_pythons() -> None:
    optimizer = Lark(nn.Linear(3, 2).parameters(), lr=np.float32(0.5), total_steps=np.int64(10))
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2, 3)
    optimizer.step()
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    group = torch.load(saved, weights_only=True)["param_groups"][0]
    assert (group["lr"], group["horizon"]) == (0.5, 10)


def test_complex_parameters_are_refused_and_a_refused_group_leaves_no_trace() -> None:
    optimizer = Lark([nn.Parameter(torch.zeros(2, 2))])
    with pytest.raises(TypeError, match="view_as_real"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, dtype=torch.cfloat))]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("lr", [1e-3, torch.tensor(3e-4)])
def test_the_rate_of_another_optimizer_is_noticed(lr: float | Tensor) -> None:
    """The swap from AdamW(parameters, lr=1e-3) must not silently stand still."""
    words = "factor on the built-in length, 1.0, .* leave it out"
    with pytest.warns(RuntimeWarning, match=words):
        Lark([nn.Parameter(torch.zeros(2, 2))], lr=lr)
    with pytest.warns(RuntimeWarning, match=words):
        Lark([{"params": [nn.Parameter(torch.zeros(2, 2))], "lr": lr}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for factor in (0.0, 0.1, 4.0):
            Lark([nn.Parameter(torch.zeros(2, 2))], lr=factor)
