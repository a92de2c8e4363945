"""Two processes under DistributedDataParallel against one process on the union of their batches."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from optiscope.optim.preconditioner.variants import PreconditionedSGD

STEPS = 18


def data() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(STEPS, 16, 4, generator=g).double(), torch.arange(16) % 3


def train(rank: int, ranks: int, by_closure: bool) -> dict[str, Any]:
    torch.manual_seed(1)
    model: nn.Module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    model.get_parameter("0.bias").requires_grad_(False)
    if ranks > 1:
        model = DistributedDataParallel(model)
    hessian = "difference" if by_closure else "exact"
    opt = PreconditionedSGD(model.parameters(), 2, 3, 3, hessian=hessian, estimate_every=10)
    xs, y = data()
    for x in xs:
        part, target = x.chunk(ranks)[rank], y.chunk(ranks)[rank]

        def closure(part: Tensor = part, target: Tensor = target) -> Tensor:
            opt.zero_grad()
            loss = functional.cross_entropy(model(part), target)
            loss.backward()
            return loss

        if by_closure:
            opt.step(closure)
        else:
            opt.zero_grad()
            opt.backward(functional.cross_entropy(model(part), target))
            opt.step()
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    log = opt.get_log()
    basis = opt._estimate.basis
    assert basis is not None
    return {"weights": weights, "rate": log["step_size"][0], "basis": basis, "log": log}


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    for by_closure in (True, False):
        torch.save(train(rank, 2, by_closure), Path(folder) / f"{rank}-{by_closure}.pt")
    distributed.destroy_process_group()


def test_two_ranks_agree_with_each_other_and_with_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(worker, (port, str(tmp_path)), nprocs=2)
    for by_closure in (True, False):
        files = [tmp_path / f"{rank}-{by_closure}.pt" for rank in (0, 1)]
        first, second = (torch.load(file, weights_only=True) for file in files)
        for key in ("weights", "basis"):
            assert torch.equal(first[key], second[key])
        assert first["log"] == second["log"]
        alone = train(0, 1, by_closure)
        torch.testing.assert_close(first["weights"], alone["weights"], rtol=1e-4, atol=1e-6)
        assert first["rate"] == pytest.approx(alone["rate"], rel=1e-3)
        overlap = (first["basis"] * alone["basis"]).sum(dim=1).abs()
        torch.testing.assert_close(overlap, torch.ones(2).double())
