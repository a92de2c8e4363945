"""Lark on zero rows, on weights of every shape, and on steps that move nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from optiscope.optim.lark import Lark, factors
from optiscope.optim.lark.reading import matrix_shape

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@pytest.fixture(params=[True, False], ids=["cpu", "queued"])
def asking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether looking at a value is free, as on a CPU, or would wait for a device."""
    free: bool = request.param
    if not free:
        monkeypatch.setattr(factors, "asking_is_free", lambda device: False)
    return free


# --- rows and columns without gradient ----------------------------------------------------------


@pytest.mark.usefixtures("asking")
@pytest.mark.parametrize("total", [400, None])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_and_columns_that_never_have_a_gradient_stay_exactly(
    dtype: torch.dtype, total: int | None
) -> None:
    """Padding, words never drawn, dead inputs, masked outputs: on both sides, by both readings."""
    torch.manual_seed(1)
    weight = nn.Parameter(torch.randn(200, 70).to(dtype))
    before = weight.detach().clone()
    rows, columns = torch.rand(200) < 0.4, torch.rand(70) < 0.3
    optimizer = Lark([weight], total_steps=total)
    for _ in range(60):
        gradient = torch.randn(200, 70) * (torch.rand(200, 1) < 0.1)
        gradient[rows], gradient[:, columns] = 0.0, 0.0
        weight.grad = gradient.to(dtype)
        optimizer.step()
    optimizer.eval()
    assert torch.equal(weight[rows], before[rows])
    assert torch.equal(weight[:, columns], before[:, columns])
    moved = (weight != before)[~rows][:, ~columns]
    assert moved.any(dim=1).sum() > 50


@pytest.mark.parametrize("sparse", [False, True])
def test_the_padding_vector_of_an_embedding_stays_zero(sparse: bool) -> None:
    embed, head = nn.Embedding(200, 16, padding_idx=0, sparse=sparse), nn.Linear(16, 3)
    optimizer = Lark([*embed.parameters(), *head.parameters()], total_steps=400)
    never = embed.weight[150:].detach().clone()
    for _ in range(100):
        optimizer.zero_grad()
        out = head(embed(torch.randint(0, 150, (16, 4))).mean(1))
        F.cross_entropy(out, torch.zeros(16, dtype=torch.long)).backward()
        optimizer.step()
    assert (embed.weight[0] == 0).all()
    assert torch.equal(embed.weight[150:], never)


def test_rows_at_rest_decay_and_follow_their_momentum_as_with_adamw() -> None:
    """A row that had a gradient goes on with its momentum; one that never had only decays."""
    weight = nn.Parameter(torch.randn(50, 40, dtype=torch.float64))
    before = weight.detach().clone()
    optimizer = Lark([weight], total_steps=10_000, weight_decay=0.1)
    gradient = torch.randn(50, 40, dtype=torch.float64)
    gradient[30:] = 0
    weight.grad = gradient
    optimizer.step()
    later = gradient.clone()
    later[:10] = 0
    middle = weight.detach().clone()
    weight.grad = later
    optimizer.step()
    assert (weight[:10] != middle[:10]).all()
    decay = [1 - 0.1 * 0.01 * (1 - step / 10_000) for step in range(2)]
    torch.testing.assert_close(
        weight.detach()[30:], before[30:] * math.prod(decay), rtol=1e-14, atol=0
    )


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), ()),
        ((7,), ()),
        ((65, 64), (65, 64)),
        ((1, 64), (1, 64)),
        ((64, 1), (64, 1)),
        ((1, 65, 64), (65, 64)),
        ((1, 1, 65, 64), (65, 64)),
        ((65, 1, 64), (65, 64)),
        ((1, 1, 768), ()),
        ((768, 1, 1), ()),
        ((1, 96, 1, 1), ()),
        ((32, 16, 3), (32, 48)),
        ((32, 16, 3, 3), (32, 144)),
        ((32, 1, 3, 3), (32, 9)),
        ((32, 16, 1, 1), (32, 16)),
        ((1, 64, 4, 4), (1, 1024)),
        ((768, 3, 16, 16), (768, 768)),
        ((32, 16, 3, 3, 3), (32, 432)),
        ((8, 64, 128), (8, 64, 128)),
        ((1, 8, 49, 49), (8, 49, 49)),
        ((1, 1, 1, 1), ()),
        ((0, 4, 5), ()),
    ],
)
def test_how_a_weight_is_read(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert matrix_shape(shape) == expected


def test_what_is_read_wrongly_can_be_said() -> None:
    assert matrix_shape((64, 32, 25)) == (64, 32, 25)
    assert matrix_shape((64, 32, 25), "kernel") == (64, 800)
    assert matrix_shape((4, 8, 8)) == (4, 64)
    assert matrix_shape((4, 8, 8), "stack") == (4, 8, 8)
    assert matrix_shape((2, 4, 8, 8), "stack") == (8, 8, 8)
    optimizer = Lark([{"params": [nn.Parameter(torch.zeros(4, 8, 8))], "read_as": "stack"}])
    assert optimizer.param_groups[0]["read_as"] == "stack"
    with pytest.raises(ValueError, match="read_as must be one of auto, kernel, stack"):
        Lark([nn.Parameter(torch.zeros(2, 2))], read_as="matrix")


def fitted(shape: tuple[int, ...], steps: int = 150) -> tuple[Tensor, dict[str, Tensor]]:
    """A weight of that shape drawn towards a target, and its state."""
    torch.manual_seed(0)
    target = torch.randn(math.prod(shape), dtype=torch.float64)
    p = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = Lark([p], total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (p.flatten() - target).square().mean().backward()
        optimizer.step()
    return p.detach().flatten(), optimizer.state[p]


@pytest.mark.parametrize("ones", [(1, 65, 64), (1, 1, 65, 64), (65, 1, 64), (65, 64, 1)])
def test_dimensions_of_one_change_nothing(ones: tuple[int, ...]) -> None:
    assert torch.equal(fitted(ones)[0], fitted((65, 64))[0])


def test_a_token_of_one_vector_moves_as_a_vector() -> None:
    assert torch.equal(fitted((1, 1, 48))[0], fitted((48,))[0])


@pytest.mark.parametrize(
    "shape",
    [(1, 197, 768), (1, 1, 768), (1, 768), (768, 1), (2, 3000), (8, 64, 128), (10, 784), (64, 3)],
)
@pytest.mark.parametrize("settings", [{}, {"rank": 512}, {"full_up_to": 1024}])
def test_state_stays_below_the_documented_bound(
    shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    p = nn.Parameter(torch.zeros(shape))
    optimizer = Lark([p], total_steps=10, **settings)
    p.grad = torch.randn(shape)
    optimizer.step()
    held = sum(value.numel() for value in optimizer.state[p].values())
    scalars = 3 * max(1, math.prod(shape[:-2])) + 64 * sum(shape)
    assert held <= 17 * p.numel() + scalars


def test_a_stack_of_experts_moves_as_its_matrices_alone() -> None:
    torch.manual_seed(0)
    experts = nn.Parameter(torch.randn(3, 20, 30, dtype=torch.float64))
    alone = [nn.Parameter(e.detach().clone()) for e in experts]
    settings: dict[str, Any] = {"total_steps": 40, "weight_decay": 0.1}
    stacked, single = Lark([experts], **settings), [Lark([p], **settings) for p in alone]
    for _ in range(25):
        experts.grad = torch.randn(3, 20, 30, dtype=torch.float64)
        for p, gradient, optimizer in zip(alone, experts.grad, single, strict=True):
            p.grad = gradient.clone()
            optimizer.step()
        stacked.step()
    torch.testing.assert_close(experts.detach(), torch.stack([p.detach() for p in alone]))
    assert [log.name for log in stacked.get_log()] == ["0[0]", "0[1]", "0[2]"]


@pytest.mark.usefixtures("asking")
@pytest.mark.parametrize("total", [40, None])
def test_an_expert_at_rest_stays(total: int | None) -> None:
    experts = nn.Parameter(torch.randn(4, 20, 30))
    optimizer = Lark([experts], total_steps=total, weight_decay=0.1)
    for step in range(20):
        before = experts.detach().clone()
        gradient = torch.randn(4, 20, 30)
        gradient[step % 4] = 0.0
        experts.grad = gradient
        optimizer.step()
        still = [torch.equal(p, q) for p, q in zip(experts.detach(), before, strict=True)]
        assert still == [i == step % 4 for i in range(4)]


@pytest.mark.parametrize("shape", [(3, 20, 30), (1, 20, 30), (1, 1, 30)])
def test_odd_shapes_resume_bit_for_bit(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(shape))
    optimizer = Lark([p])
    q = nn.Parameter(torch.empty(shape))
    other = Lark([q])
    for step in range(30):
        if step == 15:
            q.data.copy_(p.data)
            other.load_state_dict(optimizer.state_dict())
        p.grad = torch.randn(shape)
        optimizer.step()
        if step >= 15:
            q.grad = p.grad.clone()
            other.step()
    for each in (optimizer, other):
        each.eval()
    assert torch.equal(p, q)


# --- steps that move nothing --------------------------------------------------------------------


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 3))


def weights(m: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(m.parameters()).detach()


def step_norms(m: nn.Module, optimizer: Lark, steps: int) -> list[float]:
    norms = []
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        x = torch.randn(8, 6, generator=generator)
        before = weights(m).clone()
        optimizer.zero_grad()
        m(x).square().sum().backward()
        optimizer.step()
        norms.append(float((weights(m) - before).norm()))
    return norms


@pytest.mark.usefixtures("asking")
@pytest.mark.parametrize("total", [5, None])
def test_asking_for_a_fresh_state_changes_no_bit_of_training(total: int | None) -> None:
    """torch's distributed checkpoints make a fresh state by a step of zero gradients and lr 0."""
    plain, asked = model(), model()
    optimizers = [Lark(m.parameters(), total_steps=total) for m in (plain, asked)]
    fresh = get_optimizer_state_dict(asked, optimizers[1])
    assert set(fresh["state"]) == {name for name, _ in asked.named_parameters()}
    assert optimizers[1].param_groups[0]["step"] == 0
    norms = [step_norms(m, o, 5) for m, o in zip((plain, asked), optimizers, strict=True)]
    assert norms[0] == norms[1]
    assert min(norms[0]) > 0
    for optimizer in optimizers:
        optimizer.eval()
    for p, q in zip(plain.parameters(), asked.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("total", [20, None])
def test_a_state_goes_through_torchs_distributed_functions(total: int | None) -> None:
    first = model()
    optimizer = Lark(first.parameters(), total_steps=total)
    step_norms(first, optimizer, 8)
    saved = get_optimizer_state_dict(first, optimizer)
    again = model()
    again.load_state_dict(first.state_dict())
    resumed = Lark(again.parameters(), total_steps=total)
    set_optimizer_state_dict(again, resumed, saved)
    assert step_norms(first, optimizer, 8) == step_norms(again, resumed, 8)


def test_a_step_without_gradients_does_not_count_and_a_warmup_from_zero_does() -> None:
    m = model()
    optimizer = Lark(m.parameters(), total_steps=5)
    optimizer.step()
    for p in m.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert optimizer.param_groups[0]["step"] == 0
    optimizer.param_groups[0]["lr"] = 0.0
    step_norms(m, optimizer, 1)
    assert optimizer.param_groups[0]["step"] == 1
    assert optimizer.get_log()[0].left_rank > 0


# --- keys of others ------------------------------------------------------------------------------

FOREIGN = [
    ("maximize", True, "negate the loss"),
    ("betas", (0.9, 0.999), "set momentum"),
    ("eps", 1e-8, "no step depends on the gradient's scale"),
    ("fused", True, "no such kernel"),
    ("capturable", True, "cannot be captured"),
    ("differentiable", True, "cannot be differentiated"),
    ("amsgrad", True, "leave it out"),
    ("nesterov", False, "lookahead is always taken"),
    ("dampening", 0.1, "running average"),
    ("ns_steps", 5, "leave it out"),
]


@pytest.mark.parametrize(("key", "value", "remedy"), FOREIGN)
def test_keys_of_torchs_optimizers_are_refused_wherever_they_come_from(
    key: str, value: Any, remedy: str
) -> None:
    p, q = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(4, 5))
    message = f"Lark has no {key}, got .*{remedy}"
    with pytest.raises(ValueError, match=message) as refused:
        Lark([{"params": [p], key: value}])
    assert "\n" not in str(refused.value)
    optimizer = Lark([p])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [q], key: value})
    assert len(optimizer.param_groups) == 1
    saved = optimizer.state_dict()
    saved["param_groups"][0][key] = value
    other = Lark([q])
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(saved)
    assert key not in other.param_groups[0]
    optimizer.param_groups[0][key] = value
    p.grad = torch.randn(4, 5)
    before = p.detach().clone()
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert torch.equal(p, before)


def test_keys_that_ask_for_nothing_and_a_users_own_are_welcome() -> None:
    p = nn.Parameter(torch.randn(4, 5))
    group = {"params": [p], "name": "head", "lr_mult": 2, "maximize": False, "foreach": True}
    optimizer = Lark([{**group, "nesterov": True, "fused": None, "eps": None, "d": None}])
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    p.grad = torch.randn(4, 5)
    optimizer.step()
    assert optimizer.param_groups[0]["name"] == "head"


def test_flat_shards_are_refused() -> None:
    p = nn.Parameter(torch.randn(20))
    p._fsdp_flattened = True  # as FullyShardedDataParallel(use_orig_params=True) marks them
    with pytest.raises(TypeError, match="flat shard of several"):
        Lark([p])
