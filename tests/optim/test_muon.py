"""Muon set up as its authors do: which weights it takes, kernels flattened, states that resume."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from optiscope import problems
from optiscope.optim.baselines.muon import MuonWithAdamW, hidden_weights
from optiscope.optim.registry import bind


class Gpt(nn.Module):
    """A small language model, its output tied to its embedding."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.head = nn.Linear(8, 12, bias=False)  # first in order: position tells nothing
        self.tokens = nn.Embedding(12, 8)
        self.position = nn.Parameter(torch.zeros(4, 8))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(2))
        self.output = nn.ModuleDict({"dense": nn.Linear(8, 8)})
        if tied:
            self.head.weight = self.tokens.weight  # type: ignore[assignment]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.second = nn.Conv2d(4, 6, 3)
        self.across = nn.Conv1d(6, 6, 3, padding=1)
        self.dense = nn.Linear(6, 5)
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.second(F.relu(self.stem(x))))
        hidden = self.across(hidden.flatten(2)).mean(2)
        out: Tensor = self.last(F.relu(self.dense(hidden)))
        return out


def names(model: nn.Module) -> set[str]:
    hidden = set(hidden_weights(model))
    return {name for name, p in model.named_parameters() if p in hidden}


@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_heads_and_tied_weights_are_left_wherever_they_stand(tied: bool) -> None:
    blocks = {
        f"blocks.{i}.{name}.weight"
        for i in range(2)
        for name in ("self_attn.out_proj", "linear1", "linear2")
    } | {f"blocks.{i}.self_attn.in_proj_weight" for i in range(2)}
    assert names(Gpt(tied)) == blocks


def test_of_kernels_all_but_the_first_are_hidden() -> None:
    assert names(Net()) == {"second.weight", "across.weight", "dense.weight"}


@pytest.mark.parametrize(
    ("problem", "left"),
    [
        ("cifar10_3c3d", {"1.0.weight", "1.14.weight"}),
        ("tolstoi_gpt", {"token.weight", "position.weight", "output.weight"}),
        ("tolstoi_char_rnn", {"embedding.weight", "output.weight"}),
        ("cifar10_vit_patch8", {"1.embed.weight", "1.position.weight", "1.output.weight"}),
        ("mnist_logreg", {"weight"}),
    ],
)
def test_what_adamw_gets_of_the_problems_matrices(problem: str, left: set[str]) -> None:
    model = problems.get(problem).make_model()
    matrices = {name for name, p in model.named_parameters() if p.ndim > 1}
    assert {name.removeprefix("1.") for name in matrices - names(model)} == {
        name.removeprefix("1.") for name in left
    }


def train(model: nn.Module, optimizer: Any, steps: int, begin: int = 0) -> list[Tensor]:
    for step in range(begin, begin + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 1, 8, 8, generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x), x.mean((1, 2, 3)).gt(0).long()).backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_kernels_move_as_their_matrices_would() -> None:
    model = Net()
    optimizer = MuonWithAdamW(model.parameters(), lr=0.02, model=model)
    matrix = nn.Parameter(model.second.weight.detach().flatten(1).clone())
    alone = optim.Muon([matrix], lr=0.02, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        model.zero_grad()
        model(torch.randn(8, 1, 8, 8, generator=generator)).square().sum().backward()
        assert model.second.weight.grad is not None
        matrix.grad = model.second.weight.grad.flatten(1).clone()
        optimizer.step()
        alone.step()
    assert torch.equal(model.second.weight.flatten(1), matrix)


def test_a_kernel_that_is_not_contiguous_moves_the_same() -> None:
    torch.manual_seed(0)
    model, last = Net(), Net()
    last.load_state_dict(model.state_dict())
    last = last.to(memory_format=torch.channels_last)
    results = [train(m, MuonWithAdamW(m.parameters(), lr=0.02, model=m), 4) for m in (model, last)]
    for p, q in zip(*results, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("way", ["saved", "copied", "distributed"])
def test_it_goes_on_bit_for_bit(way: str) -> None:
    model = Net()
    optimizer = MuonWithAdamW(model.parameters(), lr=0.02, model=model)
    train(model, optimizer, 4)
    if way == "copied":
        again, resumed = copy.deepcopy((model, optimizer))
    else:
        again = copy.deepcopy(model)
        resumed = MuonWithAdamW(again.parameters(), lr=0.5, model=again)
        if way == "saved":
            buffer = io.BytesIO()
            torch.save(optimizer.state_dict(), buffer)
            buffer.seek(0)
            resumed.load_state_dict(torch.load(buffer, weights_only=True))
        else:
            model.zero_grad()
            again.zero_grad()
            state = get_optimizer_state_dict(model, optimizer)
            set_optimizer_state_dict(again, resumed, copy.deepcopy(state))
    after = train(model, optimizer, 4, begin=4)
    assert all(map(torch.equal, train(again, resumed, 4, begin=4), after))


def test_a_group_may_say_who_takes_it_and_names_help() -> None:
    model = Net()
    groups = [
        {"params": [model.stem.weight], "use_muon": True},
        {"params": [model.dense.weight, model.dense.bias], "use_muon": False},
    ]
    taken = [(g["use_muon"], len(g["params"])) for g in MuonWithAdamW(groups).param_groups]
    assert taken == [(True, 1), (False, 2)]
    gpt = Gpt(tied=False)
    optimizer = MuonWithAdamW(gpt.named_parameters())
    muon = optimizer.param_groups[0]["param_names"]
    assert not {"head.weight", "tokens.weight", "position"} & set(muon)


def test_keys_and_states_of_others_are_refused() -> None:
    p = nn.Parameter(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="MuonWithAdamW has no maximize, got maximize=True"):
        MuonWithAdamW([{"params": [p], "maximize": True}])
    optimizer = MuonWithAdamW([p])
    with pytest.raises(ValueError, match="older version, which left kernels to AdamW"):
        optimizer.load_state_dict({"inner": []})
    optimizer.param_groups[0]["amsgrad"] = True
    with pytest.raises(ValueError, match="has no amsgrad"):
        optimizer.step()


def test_its_trials_are_told_from_those_of_the_older_version() -> None:
    assert bind("muon", {}).spec.version == 1
