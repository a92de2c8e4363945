"""A small network, its batches, and what training it takes: for tests of the preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optiscope.optim.preconditioner.optimizer import Preconditioner

F64 = torch.float64
SMALL: dict[str, Any] = {"est_rank": 2, "num_observations": 3, "prior_iterations": 4}


def batches(count: int, seed: int = 0, size: int = 12) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    xs = torch.randn(count, size, 4, generator=g, dtype=F64)
    return [(x, torch.randint(3, (size,), generator=g)) for x in xs]


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def closure_for(
    model: nn.Module, opt: torch.optim.Optimizer, batch: tuple[Tensor, Tensor], scale: float = 1.0
) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        opt.zero_grad()
        loss = scale * functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        return loss

    return closure


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def run(
    make: Callable[..., Preconditioner], steps: int = 25, scale: float = 1.0, **settings: Any
) -> tuple[Tensor, Preconditioner]:
    model = net()
    opt = make(model.parameters(), **{**SMALL, **settings})
    for batch in batches(steps):
        opt.step(closure_for(model, opt, batch, scale))
    return weights(model), opt
