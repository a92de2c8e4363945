"""Density and trace against dense spectra: coverage of the bars, atoms, data errors."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from networks import dense, risk_of_network
from torch import Tensor

from optiscope import EmpiricalRisk
from optiscope.curvature import spectral_density, top_eigenpairs, trace
from optiscope.curvature.density import DensityError
from optiscope.curvature.hutchinson import TraceError

HESSIAN = risk_of_network(sizes=(32, 10, 10), batches=(20, 20, 20)).hessian()
MATRIX = dense(HESSIAN)
VALUES, VECTORS = torch.linalg.eigh(MATRIX)


def smooth(values: Tensor, grid: Tensor, width: float, count: int | None = None) -> Tensor:
    bumps = torch.exp(-((grid.unsqueeze(1) - values) ** 2) / (2 * width**2))
    return bumps.sum(1) / (width * math.sqrt(2 * math.pi)) / (count or len(values))


@pytest.mark.parametrize(("width", "steps"), [(0.01, 20), (0.01, 40), (0.003, 20), (0.003, 40)])
@pytest.mark.parametrize("deflated", [0, 12])
def test_bars_cover_the_dense_density(width: float, steps: int, deflated: int) -> None:
    pairs = top_eigenpairs(MATRIX, k=deflated, tol=1e-8) if deflated else None
    covered: list[float] = []
    for seed in range(4):
        density = spectral_density(
            MATRIX, probes=10, steps=steps, width=width, seed=seed, deflate=pairs
        )
        rest = VALUES[: len(VALUES) - deflated]
        right = smooth(rest, density.grid, width, len(VALUES))
        matters = right > 1e-3 * right.max()
        inside = (density.density - right).abs() <= density.half_width()
        covered.append(float(inside[matters].double().mean()))
        assert float(density.half_width()[matters].mean()) < 0.2 * float(right.max())
        total = torch.trapezoid(density.density, density.grid) + density.atom_mass * deflated
        assert float(total) == pytest.approx(1, abs=1e-3)
        if pairs is not None:
            torch.testing.assert_close(density.atoms, VALUES.flip(0)[:deflated], atol=1e-6, rtol=0)
    assert sum(covered) / len(covered) >= 0.88


def test_the_krylov_error_shows_where_steps_do_not_resolve_the_width() -> None:
    coarse = spectral_density(MATRIX, steps=20, width=0.001)
    fine = spectral_density(MATRIX, probes=4, steps=120, width=0.05)
    assert float((coarse.krylov / coarse.density.max()).max()) > 0.01
    assert float((fine.krylov / fine.density.max()).max()) < 1e-3


def test_the_data_error_is_that_of_the_jackknife_over_batches() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(400, 6).double(), torch.randint(3, (400,))
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)
    ).double()
    batches = list(zip(x.split(50), y.split(50), strict=True))
    operator = EmpiricalRisk(model, F.cross_entropy, batches).hessian()
    width = 0.08
    density = spectral_density(operator, probes=30, steps=16, width=width, points=60)
    parts = [dense(EmpiricalRisk(model, F.cross_entropy, [b]).hessian()) for b in batches]
    total = sum(parts)
    assert isinstance(total, Tensor)
    left_out = [(total - part) / 7 for part in parts]
    curves = torch.stack([smooth(torch.linalg.eigvalsh(h), density.grid, width) for h in left_out])
    jackknife = (7 / 8 * (curves - curves.mean(0)).square().sum(0)).sqrt()
    assert density.data is not None
    matters = density.density > 0.05 * density.density.max()
    ratio = float(density.data[matters].mean() / jackknife[matters].mean())
    assert 0.6 < ratio < 1.6
    estimate = trace(operator, probes=60)
    traces = torch.stack([h.trace() for h in left_out])
    spread = float((7 / 8 * (traces - traces.mean()).square().sum()).sqrt())
    assert estimate.data_error == pytest.approx(spread, rel=0.5)
    assert spectral_density(MATRIX, steps=5).data is None


def test_another_grid_costs_nothing() -> None:
    density = spectral_density(HESSIAN, probes=4, steps=30)
    products = HESSIAN.products
    curve = density.on(torch.linspace(-1, 2, 50).double(), 0.02)
    torch.testing.assert_close(
        curve.density, density.on(curve.grid, 0.02, linear_below=None).density
    )
    grid = torch.sinh(torch.linspace(-8, 8, 4001).double()) * 1e-3
    logarithmic = density.on(grid, 0.1, linear_below=1e-3)
    mass = torch.trapezoid(logarithmic.density, torch.asinh(grid / 1e-3))
    assert float(mass) == pytest.approx(1, abs=1e-3)
    assert logarithmic.data is not None
    assert HESSIAN.products == products
    assert density.mass_above(-1e9) == pytest.approx(1)
    above = float((VALUES > 0.05).double().mean())
    assert density.mass_above(0.05) == pytest.approx(above, abs=0.06)


def test_trace_covers_and_deflation_narrows() -> None:
    right = float(MATRIX.trace())
    pairs = top_eigenpairs(MATRIX, k=15, tol=1e-8)
    hits, narrow = [], []
    for seed in range(60):
        plain = trace(MATRIX, seed=seed)
        deflated = trace(MATRIX, deflate=pairs, seed=seed)
        hits.append(deflated.interval[0] <= right <= deflated.interval[1])
        narrow.append(deflated.standard_error < plain.standard_error)
    assert sum(hits) >= 48
    assert sum(narrow) > 40
    exact = trace(MATRIX, probes=len(MATRIX))
    assert exact.value == pytest.approx(right, abs=1e-12)
    assert exact.standard_error == 0


def test_the_trace_of_a_negated_loss_does_not_stop_early() -> None:
    right = float(MATRIX.trace())
    estimate = trace(-MATRIX, probes=200)
    assert estimate.interval[0] <= -right <= estimate.interval[1]
    assert estimate.cost.products == 200


def test_wrong_arguments_are_refused() -> None:
    pairs = top_eigenpairs(MATRIX, k=2, keep_vectors=False)
    with pytest.raises(TraceError, match="keep_vectors"):
        trace(MATRIX, deflate=pairs)
    with pytest.raises(TraceError, match="rows"):
        trace(torch.eye(5).double(), deflate=top_eigenpairs(MATRIX, k=2))
    with pytest.raises(TraceError, match="two probes"):
        trace(MATRIX, probes=1)
    with pytest.raises(DensityError, match="2 probes"):
        spectral_density(MATRIX, steps=2)
    with pytest.raises(DensityError, match="width"):
        spectral_density(MATRIX, width=-1)
