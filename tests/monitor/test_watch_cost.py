"""What a watch costs in memory and looks: bounded, however long the run."""

from __future__ import annotations

import gc
import itertools
import tracemalloc

import pytest
import torch
from torch import nn

import optiscope
from optiscope.monitor.budget import Budget
from optiscope.monitor.looks import Looks
from optiscope.monitor.losses import LossHistory


def growth(first: int, last: int) -> float:
    """Bytes that Python holds more after step ``last`` of a watched run than after ``first``.

    Series fill up to a limit: it is set so low that they are full by step ``first``.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer, criterion = torch.optim.SGD(model.parameters(), 0.05), nn.CrossEntropyLoss()
    x = torch.randn(300, 6)
    y = x[:, :3].argmax(1)
    held = 0
    with optiscope.watch(model, optimizer, criterion, on_finding="log") as watch:
        watch.series.limit = 100
        tracemalloc.start()
        try:
            for step in range(last):
                picked = torch.randperm(300)[:16]
                optimizer.zero_grad()
                criterion(model(x[picked]), y[picked]).backward()
                optimizer.step()
                if step == first:
                    gc.collect()
                    held = tracemalloc.get_traced_memory()[0]
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - held
        finally:
            tracemalloc.stop()


def test_memory_does_not_grow_with_the_steps() -> None:
    assert growth(1200, 2400) < 100_000


@pytest.mark.slow
def test_memory_does_not_grow_in_ten_thousand_steps() -> None:
    assert growth(4000, 10_000) < 100_000


def test_losses_keep_the_first_and_the_latest() -> None:
    losses = LossHistory()
    for step in range(5000):
        losses.append((step, float(step)))
    assert len(losses) < 1000
    assert losses.total == 5000
    assert losses[:2] == [(0, 0.0), (1, 1.0)]
    assert losses.since(4998) == [(4998, 4998.0), (4999, 4999.0)]
    assert losses.since(5000) == []
    assert losses.since(100)[0] == (100, 100.0)


def planned(cost: int, steps: int) -> list[int]:
    looks, seen = Looks(10), []
    for step in range(steps):
        if looks.due(step):
            seen.append(step)
            looks.looked(step, cost)
    return seen


def test_looks_are_dense_at_first_and_as_the_budget_allows_later() -> None:
    cheap, dear = planned(10, 2000), planned(1000, 20_000)
    assert cheap[:8] == dear[:8] == [0, 1, 2, 3, 5, 10, 20, 30]
    assert cheap[-1] - cheap[-2] == 10
    late = [b - a for a, b in itertools.pairwise(dear) if a > 3000]
    assert set(late) == {1000}
    assert all(b - a <= max(10, 0.4 * a) for a, b in itertools.pairwise(dear))


def test_what_is_done_before_a_call_is_part_of_its_cost() -> None:
    budget = Budget(0.05, 10)
    budget.charge("norms", 2.0)
    with budget.spend("norms", 0):
        pass
    assert budget.spent["norms"] >= 2.0
    assert budget.costs["norms"] >= 2.0
