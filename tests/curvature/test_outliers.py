"""Counts of outliers: known ones, the three rules, intervals, lists that end too early."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from optiscope import EmpiricalRisk
from optiscope.curvature import count_outliers, spectral_density, top_eigenpairs
from optiscope.curvature.outliers import OutlierError


def ghosts(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    bulk = torch.rand(396, generator=generator, dtype=torch.float64) / 2
    return torch.diag(torch.cat([torch.tensor([5.0, 8.0, 20.0, 50.0]).double(), bulk]))


@pytest.mark.parametrize("seed", range(6))
def test_four_outliers_above_a_uniform_bulk(seed: int) -> None:
    matrix = ghosts(seed)
    for k in (5, 10, 20):
        pairs = top_eigenpairs(matrix, k=k, seed=seed)
        for rule in (None, "gap"):
            count = count_outliers(pairs, rule=rule)
            assert count.count == int(count) == 4
            assert count.low <= 4 <= count.high
            assert 0.5 < count.threshold < 5
    density = spectral_density(matrix, probes=4, steps=20, deflate=pairs)
    assert count_outliers(pairs, density, "edge").count == 4
    few = top_eigenpairs(matrix, k=4, seed=seed)
    assert count_outliers(few, spectral_density(matrix, probes=4, steps=20, deflate=few)).count == 4


def test_a_threshold_that_is_given() -> None:
    pairs = top_eigenpairs(ghosts(0), k=10)
    for threshold, right in [(4.0, 4), (10.0, 2), (100.0, 0), (0.0, 10)]:
        count = count_outliers(pairs, rule="threshold", threshold=threshold)
        assert (count.count, count.threshold, count.rule) == (right, threshold, "threshold")
        assert count_outliers(pairs, threshold=threshold).count == right
    assert "ask for more" in count.reason


@pytest.mark.parametrize("values", [
    np.ones(30), np.linspace(0.9, 1, 30), -np.ones(30), np.zeros(30), np.array([1.0]),
    np.array([2.0, -1.0, -1.0]), np.array([1e-30, 1e-31, 0.0]),
])  # fmt: skip
@pytest.mark.parametrize("rule", [None, "edge", "gap"])
def test_lists_without_outliers_or_bulk(values: Any, rule: Any) -> None:
    pairs = top_eigenpairs(torch.diag(torch.as_tensor(values)), k=10)
    count = count_outliers(pairs, rule=rule)
    assert 0 <= count.low <= count.count <= count.high <= len(pairs)
    if rule == "edge" and len(values) == 30:
        assert count.count == 0
        assert math.isinf(count.threshold)


def test_the_interval_covers_what_another_sample_gives() -> None:
    """A linear model whose inputs have three large variances and an uncertain fourth."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.cat([torch.tensor([9.0, 8.0, 7.0]), torch.full((37,), 1.0)]).double().sqrt()
    model = nn.Linear(40, 1, bias=False).double()
    covered = 0
    for _ in range(4):
        x = torch.randn(600, 40, generator=generator, dtype=torch.float64) * scale
        risk = EmpiricalRisk(model, lambda o, t: o.square().mean() / 2, (x, x[:, 0]), batch_size=40)
        pairs = top_eigenpairs(risk.hessian(), k=15)
        count = count_outliers(pairs)
        assert count.low <= count.count <= count.high
        covered += count.low <= 3 <= count.high
    assert covered >= 3


def test_wrong_arguments_are_refused() -> None:
    pairs = top_eigenpairs(ghosts(0), k=5)
    with pytest.raises(OutlierError, match="did you mean 'edge'"):
        count_outliers(pairs, rule="egde")
    with pytest.raises(OutlierError, match="threshold"):
        count_outliers(pairs, rule="threshold")
    with pytest.raises(OutlierError, match="smallest"):
        count_outliers(top_eigenpairs(ghosts(0), k=5, which="smallest"))
