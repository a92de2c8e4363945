"""What holds for every included optimizer: foreign keys, shards, torch's distributed functions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from optiscope import (
    AdaptiveSGD,
    Lark,
    OnlyAdaptiveSGD,
    PreconditionedSGD,
    PreconditionedTunedMomentum,
    PreconditionedTunedSGD,
    Preconditioner,
)
from optiscope.optim.baselines.muon import MuonWithAdamW
from optiscope.optim.saddle_free_newton import SaddleFreeNewton
from optiscope.reproduction.layer_rates import LayerwiseAdaptiveSGD
from optiscope.reproduction.published_program import PublishedPreconditioner

Make = Callable[..., Optimizer]


def tuned(kind: Any) -> Make:
    return lambda params: kind(params, lr=0.1)


OPTIMIZERS: dict[str, Make] = {
    "Lark": Lark,
    "Preconditioner": Preconditioner,
    "PreconditionedSGD": PreconditionedSGD,
    "AdaptiveSGD": AdaptiveSGD,
    "OnlyAdaptiveSGD": OnlyAdaptiveSGD,
    "PreconditionedTunedSGD": tuned(PreconditionedTunedSGD),
    "PreconditionedTunedMomentum": tuned(PreconditionedTunedMomentum),
    "MuonWithAdamW": MuonWithAdamW,
    "SaddleFreeNewton": SaddleFreeNewton,
    "LayerwiseAdaptiveSGD": LayerwiseAdaptiveSGD,
    "PublishedPreconditioner": PublishedPreconditioner,
}
CURVATURE = [name for name in OPTIMIZERS if "recondition" in name or "AdaptiveSGD" in name][:6]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("key", "value"),
    [("maximize", True), ("capturable", True), ("differentiable", True), ("rho", 0.5)],
)
def test_keys_of_torchs_optimizers_are_refused(name: str, key: str, value: Any) -> None:
    groups = [{"params": list(model().parameters()), key: value}]
    with pytest.raises(ValueError, match=key) as caught:
        OPTIMIZERS[name](groups)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Lark", *CURVATURE, "MuonWithAdamW", "SaddleFreeNewton"])
def test_keys_written_later_are_refused_in_the_step(name: str) -> None:
    m = model()
    optimizer = OPTIMIZERS[name](m.parameters())
    optimizer.param_groups[0]["maximize"] = True

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = m(torch.ones(4, 6)).square().sum()
        loss.backward()
        return loss

    before = [p.detach().clone() for p in m.parameters()]
    with pytest.raises(ValueError, match="maximize"):
        optimizer.step(closure)  # type: ignore[arg-type]
    assert all(map(torch.equal, m.parameters(), before))


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        (name, mark)
        for name in OPTIMIZERS
        for mark in ("_fsdp_flattened", "_is_flat_param", "device_mesh")
        if (name, mark) != ("Lark", "device_mesh")  # it gathers the gradients of such shards
    ],
)
def test_shards_are_refused_in_one_line(name: str, mark: str) -> None:
    params = list(model().parameters())
    setattr(params[0], mark, True)
    with pytest.raises(TypeError, match="expected whole parameters, got a") as caught:
        OPTIMIZERS[name](params)
    assert "\n" not in str(caught.value)


def run(m: nn.Module, optimizer: Any, steps: int, begin: int = 0) -> list[Tensor]:
    for step in range(begin, begin + steps):
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))

        def closure(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(m(x), x[:, :3].argmax(1))
            loss.backward()
            return loss

        optimizer.step(closure)
    return [p.detach().clone() for p in m.parameters()]


@pytest.mark.parametrize("name", CURVATURE)
@pytest.mark.parametrize("steps", [0, 4, 30])
def test_torchs_distributed_functions_bring_back_a_preconditioners_whole_state(
    name: str, steps: int
) -> None:
    m = model()
    optimizer = OPTIMIZERS[name](m.parameters())
    run(m, optimizer, steps)
    m.zero_grad()
    saved = copy.deepcopy(get_optimizer_state_dict(m, optimizer))
    again = copy.deepcopy(m)
    resumed = OPTIMIZERS[name](again.parameters())
    set_optimizer_state_dict(again, resumed, saved)
    after = run(m, optimizer, 12, begin=steps)
    assert all(map(torch.equal, run(again, resumed, 12, begin=steps), after))


@pytest.mark.parametrize("name", CURVATURE)
def test_asking_for_a_fresh_state_leaves_no_trace(name: str) -> None:
    first, second = model(), model()
    optimizers = [OPTIMIZERS[name](m.parameters()) for m in (first, second)]
    get_optimizer_state_dict(second, optimizers[1])
    results = [run(m, o, 20) for m, o in zip((first, second), optimizers, strict=True)]
    assert all(map(torch.equal, *results))
