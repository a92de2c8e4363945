"""Thin factorisations against dense linear algebra, and what they do on degenerate input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optiscope.linalg.eigenpairs import block_power_iteration, rayleigh_ritz
from optiscope.linalg.low_rank import (
    apply_low_rank,
    factorize_symmetric,
    relative_power,
    shrink_values,
)
from optiscope.linalg.orthonormal import orthonormalize, tall_qr

DEGENERATE = {
    "zero": torch.zeros(12, 3),
    "duplicate": torch.ones(12, 3),
    "one zero column": torch.cat([torch.eye(12)[:, :2], torch.zeros(12, 1)], dim=1),
    "huge": torch.eye(12)[:, :3] * 1e20 + 1e19,
    "tiny": torch.eye(12)[:, :3] * 1e-20 + 1e-21,
    "mixed scales": torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    * torch.tensor([1e-20, 1.0, 1e20]),
}


def orthonormality_error(q: torch.Tensor) -> float:
    return float((q.mT @ q - torch.eye(q.shape[-1], dtype=q.dtype)).abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DEGENERATE)
def test_orthonormal_whatever_comes(name: str, dtype: torch.dtype) -> None:
    block = DEGENERATE[name].to(dtype)
    q, r = tall_qr(block)
    eps = torch.finfo(dtype).eps
    assert orthonormality_error(q) < 20 * eps
    scale = block.abs().amax(dim=0).clamp(min=torch.finfo(torch.float32).tiny)
    assert float(((q @ r - block) / scale).abs().max()) < 50 * eps


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(2, 40),
    k=st.integers(1, 6),
    rank=st.integers(0, 6),
    exponent=st.integers(-20, 20),
    seed=st.integers(0, 2**16),
)
def test_qr_of_random_blocks(n: int, k: int, rank: int, exponent: int, seed: int) -> None:
    k = min(n, k)
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(n, rank, generator=generator) @ torch.randn(rank, k, generator=generator)
    block = block * 10.0**exponent
    q, r = tall_qr(block)
    assert orthonormality_error(q) < 5e-6
    largest = float(block.abs().max())
    assert float((q @ r - block).abs().max()) <= 1e-5 * largest + 1e-30


def test_batched_orthonormalisation_equals_one_by_one() -> None:
    blocks = torch.randn(4, 20, 3, dtype=torch.float64)
    together = orthonormalize(blocks)
    alone = torch.stack([orthonormalize(block) for block in blocks])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize(("n", "m"), [(40, 4), (7, 4), (3, 3), (1, 1)])
def test_exact_factorisation_equals_dense(n: int, m: int) -> None:
    left = torch.randn(n, m, dtype=torch.float64)
    right = torch.randn(n, m, dtype=torch.float64)
    pairs = factorize_symmetric(left, right, base=0.7)
    outer = left @ right.mT
    dense = 0.7 * torch.eye(n, dtype=torch.float64) + (outer + outer.mT) / 2
    rebuilt = 0.7 * torch.eye(n, dtype=torch.float64) + pairs.basis @ (
        (pairs.values - 0.7).unsqueeze(1) * pairs.basis.mT
    )
    torch.testing.assert_close(rebuilt, dense, rtol=0, atol=1e-13)
    spectrum = torch.linalg.eigvalsh(dense)
    rest = max(n - 2 * m, 0)  # the rest of the spectrum is exactly the base
    assert int(((spectrum - 0.7).abs() < 1e-12).sum()) >= rest
    expected = torch.cat(
        [pairs.values, torch.full((n - len(pairs.values),), 0.7, dtype=torch.float64)]
    )
    torch.testing.assert_close(expected.sort().values, spectrum, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("name", ["zero", "duplicate", "one zero column"])
def test_factorisation_of_degenerate_factors_is_finite(name: str, scale: float) -> None:
    block = DEGENERATE[name]
    pairs = factorize_symmetric(block * scale, block, base=scale)
    assert pairs.values.isfinite().all()
    assert orthonormality_error(pairs.basis) < 1e-5
    dense = (block @ block.mT).double()
    top = scale * (1 + float(torch.linalg.eigvalsh(dense)[-1]))
    assert float(pairs.values[0]) == pytest.approx(top, rel=1e-5)


def test_non_finite_factors_give_nan_values_and_no_exception() -> None:
    pairs = factorize_symmetric(torch.full((12, 2), torch.nan), torch.ones(12, 2))
    assert pairs.values.isnan().all()


def test_block_power_iteration_converges_to_the_leading_pairs() -> None:
    q = orthonormalize(torch.randn(30, 30, dtype=torch.float64))
    spectrum = torch.cat([torch.tensor([40.0, -25.0, 10.0]), torch.rand(27)]).double()
    matrix = q @ (spectrum.unsqueeze(1) * q.mT)
    pairs = block_power_iteration(lambda v: matrix @ v, torch.randn(30, 3).double(), 40)
    torch.testing.assert_close(pairs.values, spectrum[:3])
    assert float(pairs.residuals.max()) < 1e-6
    torch.testing.assert_close(matrix @ pairs.basis, pairs.basis * pairs.values)


def test_residuals_are_those_of_the_returned_pairs() -> None:
    matrix = torch.randn(20, 20, dtype=torch.float64)
    matrix = matrix + matrix.mT
    basis = orthonormalize(torch.randn(20, 4, dtype=torch.float64))
    pairs = rayleigh_ritz(basis, matrix @ basis)
    gap = matrix @ pairs.basis - pairs.basis * pairs.values
    torch.testing.assert_close(pairs.residuals, gap.norm(dim=0))
    assert bool((pairs.values.abs().diff() <= 0).all())


@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 4)])
def test_thin_products_equal_the_dense_matrix(shape: tuple[int, ...]) -> None:
    basis = orthonormalize(torch.randn(9, 3, dtype=torch.float64))
    c = torch.randn(3, dtype=torch.float64)
    vectors = torch.randn(shape, dtype=torch.float64)
    dense = torch.eye(9, dtype=torch.float64) + basis @ torch.diag(c) @ basis.mT
    torch.testing.assert_close(apply_low_rank(basis, c, vectors), dense @ vectors)


@pytest.mark.parametrize("power", [-1.0, -0.5, 0.25])
def test_power_of_a_low_rank_matrix(power: float) -> None:
    basis = orthonormalize(torch.randn(8, 2, dtype=torch.float64))
    values = torch.tensor([9.0, 4.0], dtype=torch.float64)
    dense = 2 * torch.eye(8, dtype=torch.float64) + basis @ torch.diag(values - 2) @ basis.mT
    spectrum, vectors = torch.linalg.eigh(dense / 2)
    expected = vectors @ torch.diag(spectrum**power) @ vectors.mT
    c = relative_power(values, 2.0, power)
    torch.testing.assert_close(apply_low_rank(basis, c, torch.eye(8).double()), expected)


def test_negative_tiny_and_zero_values_never_flip_or_lengthen() -> None:
    values = torch.tensor([-8.0, 1e-30, 0.0, 1e38])
    factors = 1 + relative_power(values, 2.0, -1.0)
    assert bool((factors >= 0).all())
    assert bool((factors <= 1).all())
    assert float(factors[0]) == pytest.approx(0.25)
    assert bool((relative_power(values, 0.0, -1.0) == 0).all())


def test_shrinkage_keeps_the_certain_and_drops_the_doubtful() -> None:
    values = torch.tensor([10.0, 1.5, 1.0, -9.0])
    shrunk = shrink_values(values, 1.0, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(shrunk, torch.tensor([10 - 1 / 9, 1.0, 1.0, -9.0]))
