"""Optimizers over two processes: identical bits on all ranks, equal to one on the union batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from optiscope.optim.baselines.muon import MuonWithAdamW
from optiscope.optim.baselines.saddle_free_newton import SaddleFreeNewton
from optiscope.optim.lark.optimizer import Lark
from optiscope.optim.lark.sharded import whole
from optiscope.optim.preconditioner.variants import (
    AdaptiveSGD,
    OnlyAdaptiveSGD,
    PreconditionedSGD,
    PreconditionedTunedMomentum,
    PreconditionedTunedSGD,
)

STEPS, WORLD = 12, 2


def model() -> nn.Module:
    torch.manual_seed(11)
    return nn.Sequential(
        nn.Linear(10, 48), nn.Tanh(), nn.Linear(48, 40), nn.Tanh(), nn.Linear(40, 4)
    )


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 10, generator=generator, dtype=torch.float64)
    return x, x[:, :4].argmax(dim=1)


def learn(
    net: nn.Module, parameters: list[nn.Parameter], rank: int, world: int, **settings: Any
) -> list[Tensor]:
    optimizer = Lark(parameters, **settings)
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(net(x.chunk(world)[rank]), y.chunk(world)[rank]).backward()
        optimizer.step()
    optimizer.eval()
    return [whole(p.detach()).clone() for p in parameters]


SETTINGS: list[dict[str, Any]] = [
    {"total_steps": STEPS, "weight_decay": 0.1, "renew_every": 3},
    {"renew_every": 3},  # evaluates at an average of weights
]


def begin(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )


def worker(rank: int, folder: str) -> None:
    """Train a model replicated, then one sharded for each of ``SETTINGS``; save all weights."""
    begin(rank, folder)
    net = model().double()
    replicated = DistributedDataParallel(net)
    weights = [learn(replicated, list(net.parameters()), rank, WORLD, total_steps=STEPS)]
    mesh = dist.device_mesh.init_device_mesh("cpu", (WORLD,))
    for settings in SETTINGS:
        net = model().double()
        for layer in net:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        fully_shard(net, mesh=mesh)
        weights.append(learn(net, list(net.parameters()), rank, WORLD, **settings))
    torch.save(weights, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What two processes saved; none is waited for without a limit."""
    folder = tmp_path_factory.mktemp("ranks")
    context = mp.spawn(worker, args=(str(folder),), nprocs=WORLD, join=False)
    end = time.monotonic() + 240
    while not context.join(timeout=5):
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            raise TimeoutError("two processes did not end")
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD))
    return first, second


def test_two_processes_agree_bit_for_bit_and_with_one_on_the_union(
    trained: tuple[Any, Any],
) -> None:
    first, second = (weights[0] for weights in trained)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    net = model().double()
    union = learn(net, list(net.parameters()), 0, 1, total_steps=STEPS)
    for a, b in zip(first, union, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_sharded_parameters_move_as_one_process_moves_them_on_the_union(
    trained: tuple[Any, Any],
) -> None:
    """``fully_shard``, one layer of four rows on two processes, biases of odd sizes and all."""
    first, second = (weights[1:] for weights in trained)
    for one, two, settings in zip(first, second, SETTINGS, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        net = model().double()
        union = learn(net, list(net.parameters()), 0, 1, **settings)
        for a, b, c in zip(one, union, model().double().parameters(), strict=True):
            assert (b - c).abs().max() > 1e-4  # it moved
            torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: PreconditionedSGD(p, 2, 3, 3),
        lambda p: AdaptiveSGD(p, 2, 3, 3),
        lambda p: OnlyAdaptiveSGD(p, 2, 3, 3),
        lambda p: PreconditionedTunedSGD(p, 2, 3, 3, lr=0.1),
        lambda p: PreconditionedTunedMomentum(p, 2, 3, 3, lr=0.1),
        lambda p: MuonWithAdamW(p, lr=0.1),
        lambda p: SaddleFreeNewton(p),
    ],
    ids=["preconditioned", "adaptive", "only adaptive", "tuned", "momentum", "muon", "sfn"],
)
def test_the_other_own_optimizers_refuse_in_one_line(
    make: Callable[[Any], Any], tmp_path: Path
) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        net = fully_shard(nn.Linear(4, 4), mesh=mesh)
        with pytest.raises(
            TypeError, match="use DistributedDataParallel instead of fully_shard"
        ) as caught:
            make(net.parameters())
        assert "\n" not in str(caught.value)
    finally:
        dist.destroy_process_group()
