"""Two processes: healthy ranks are silent, ranks that differ or see the same data are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

import optiscope

pytestmark = pytest.mark.slow


def work(rank: int, folder: str) -> None:
    """Train three times in this rank and leave the findings."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    torch.set_num_threads(1)
    results = {}
    for kind in ("healthy", "bypassed", "same data"):
        torch.manual_seed(0)
        inner, criterion = (
            nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)),
            nn.CrossEntropyLoss(),
        )
        model = nn.parallel.DistributedDataParallel(inner)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        watch = optiscope.watch(model, optimizer, criterion, on_finding="log")
        generator = torch.Generator().manual_seed(0 if kind == "same data" else 1 + rank)
        for _ in range(41):
            x = torch.randn(16, 8, generator=generator)
            optimizer.zero_grad()
            called = inner if kind == "bypassed" else model
            criterion(called(x), x[:, :3].argmax(1)).backward()
            optimizer.step()
        dist.barrier()
        watch.close()
        assert not watch.failures
        results[kind] = [f.rule for f in watch.findings if f.is_alarm]
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


def test_two_ranks(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["healthy"] == second["healthy"] == []
    together = {*first["bypassed"], *second["bypassed"]}
    assert "model_bypassed" in together
    assert "ranks_differ" in together
    assert "ranks_see_same_data" in {*first["same data"], *second["same data"]}
