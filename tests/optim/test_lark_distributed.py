"""Lark over two processes: identical bits on all ranks, equal to one process on the union batch."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from optiscope.optim.lark.optimizer import Lark

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


def learn(net: nn.Module, parameters: list[nn.Parameter], rank: int, world: int) -> list[Tensor]:
    optimizer = Lark(parameters, horizon=STEPS)
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(net(x.chunk(world)[rank]), y.chunk(world)[rank]).backward()
        optimizer.step()
    return [p.detach().clone() for p in parameters]


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    net = model().double()
    weights = learn(DistributedDataParallel(net), list(net.parameters()), rank, WORLD)
    torch.save(weights, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_agree_bit_for_bit_and_with_one_on_the_union(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, args=(port, str(tmp_path)), nprocs=WORLD)
    first, second = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    net = model().double()
    union = learn(net, list(net.parameters()), 0, 1)
    for a, b in zip(first, union, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_sharded_parameters_are_refused_clearly(tmp_path: Path) -> None:
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        net = fully_shard(nn.Linear(4, 4), mesh=mesh)
        with pytest.raises(TypeError, match="use DistributedDataParallel instead of fully_shard"):
            Lark(net.parameters())
    finally:
        dist.destroy_process_group()
