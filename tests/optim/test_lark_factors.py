"""The Kronecker factors against dense linear algebra, and on degenerate input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from optiscope.optim.lark.factors import (
    Block,
    FactorPowers,
    first_block,
    gains,
    gather,
    inner_product,
    iterate_core,
    precondition_,
    renew,
    thin_parts,
)


def orthonormal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linalg.qr(torch.randn(*shape, dtype=dtype))[0]


def moment(d: int, decay: float = 0.5) -> Tensor:
    """A positive D x D matrix with eigenvalues 1, decay, decay^2, ..."""
    basis = orthonormal(d, d)
    return basis @ torch.diag(decay ** torch.arange(d, dtype=torch.float64)) @ basis.T


def test_full_rank_renewal_is_the_exact_eigendecomposition() -> None:
    a, basis = moment(7), orthonormal(7, 7)
    block, values = renew(Block(basis, a @ basis))
    torch.testing.assert_close(values, torch.linalg.eigvalsh(a).flip(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(block.basis @ torch.diag(values) @ block.basis.T, a)
    torch.testing.assert_close(block.image, a @ block.basis)


def test_renewal_of_a_matrix_of_rank_k_is_exact() -> None:
    thin = torch.randn(30, 4, dtype=torch.float64)
    a, basis = thin @ thin.T, orthonormal(30, 4)
    block, values = renew(Block(basis, a @ basis))
    exact = torch.linalg.eigvalsh(a).flip(0)[:4]
    torch.testing.assert_close(values, exact, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(block.basis @ block.image.T, a, rtol=1e-6, atol=1e-6)


def test_renewed_values_never_exceed_the_true_ones_and_converge_to_them() -> None:
    a = moment(40, 0.8)
    exact = torch.linalg.eigvalsh(a).flip(0)[:5]
    basis = orthonormal(40, 5)
    for _ in range(30):
        block, values = renew(Block(basis, a @ basis))
        assert (values <= exact + 1e-8).all()
        basis = block.basis
        torch.testing.assert_close(basis.T @ basis, torch.eye(5, dtype=a.dtype))
    torch.testing.assert_close(values, exact, rtol=1e-4, atol=0)


def test_running_average_of_noisy_gradients_finds_their_directions() -> None:
    directions = orthonormal(50, 3)
    scales = torch.tensor([10.0, 6.0, 3.0], dtype=torch.float64)

    def gradient() -> Tensor:
        signal = (directions * scales) @ torch.randn(3, 20, dtype=torch.float64)
        return signal + 0.3 * torch.randn(50, 20, dtype=torch.float64)

    block = first_block(gradient(), 3)
    for step in range(200):
        g = gradient()
        block = Block(block.basis, gather(block.image, g, g.mT @ block.basis, 0.02))
        if step % 10 == 0:
            block, values = renew(block)
    overlap = torch.linalg.svdvals(directions.T @ block.basis)
    assert overlap.min() > 0.999
    torch.testing.assert_close(values, 20 * (scales**2 + 0.09), rtol=0.25, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_deficient_blocks_stay_orthonormal_and_finite(dtype: torch.dtype, scale: float) -> None:
    single = torch.randn(40, 1, dtype=dtype) * scale**0.5
    block = first_block(single, 8)
    for _ in range(5):
        image = gather(block.image, single, single.mT @ block.basis, 0.5)
        block, values = renew(Block(block.basis, image))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    gap = block.basis.T @ block.basis - torch.eye(8, dtype=dtype)
    assert gap.abs().max() < tolerance
    assert values[0] == pytest.approx(float(single.square().sum()) * (1 - 0.5**5), rel=1e-3)
    assert (values[1:] < 1e-4 * values[0]).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_zero_gradient_gives_an_orthonormal_block_and_zero_values(seed: int) -> None:
    """Exactly zero, whatever the processor's rounding: bases of many seeds round differently."""
    zero = torch.zeros(12, 5)
    generator = torch.Generator().manual_seed(seed)
    bases = [
        first_block(zero, 3).basis,
        torch.linalg.qr(torch.randn(12, 3, generator=generator))[0],
    ]
    for basis in bases:
        image = gather(torch.zeros_like(basis), zero, zero.mT @ basis, 0.1)
        block, values = renew(Block(basis, image))
        torch.testing.assert_close(block.basis.T @ block.basis, torch.eye(3), atol=1e-5, rtol=0)
        assert (values == 0).all()
        assert (block.image == 0).all()
        coefficients, _ = gains(values, torch.zeros(()), 12, 0.5)
        assert (coefficients == 0).all()


def test_iteration_that_never_waits_agrees_with_lapack_on_nearly_diagonal_cores() -> None:
    core = torch.diag(0.6 ** torch.arange(12, dtype=torch.float64))
    noise = torch.randn(12, 12, dtype=torch.float64) * 0.02
    core = core + (noise + noise.T) * core.diagonal().sqrt().outer(core.diagonal().sqrt())
    values, vectors = iterate_core(core.expand(2, 12, 12))
    exact = torch.linalg.eigvalsh(core).flip(0)
    torch.testing.assert_close(values[0], exact, rtol=1e-4, atol=0)
    torch.testing.assert_close(vectors[1].T @ vectors[1], torch.eye(12, dtype=core.dtype))
    left = vectors[0].T @ core @ vectors[0]
    assert (left - torch.diag(left.diagonal())).norm() < 0.01 * core.norm()


def test_gains_whiten_what_is_kept_and_leave_the_rest() -> None:
    values = torch.tensor([16.0, 4.0, 1.0])
    coefficients, rest = gains(values, torch.tensor(21.0 + 0.25 * 7), 10, 0.5)
    assert float(rest) == pytest.approx(0.25)
    torch.testing.assert_close(1 + coefficients, torch.tensor([0.125, 0.25, 0.5]))


def test_no_direction_counts_less_than_the_rest() -> None:
    values = torch.tensor([4.0, 0.1])
    coefficients, rest = gains(values, torch.tensor(4.1 + 8.0), 10, 0.5)
    assert float(rest) == pytest.approx(1.0)
    torch.testing.assert_close(1 + coefficients, torch.tensor([0.5, 1.0]))


def case(batch: tuple[int, ...]) -> tuple[Tensor, Tensor, FactorPowers, Tensor, Tensor]:
    """Two matrices, their preconditioner, and the dense f(L) and f(R)."""
    left, right = orthonormal(*batch, 9, 3), orthonormal(*batch, 14, 5)
    c, e = torch.randn(*batch, 3).double(), torch.randn(*batch, 5).double()
    f_left = torch.eye(9).double() + left @ torch.diag_embed(c) @ left.mT
    f_right = torch.eye(14).double() + right @ torch.diag_embed(e) @ right.mT
    x, y = torch.randn(2, *batch, 9, 14, dtype=torch.float64)
    return x, y, FactorPowers(left, c, right, e), f_left, f_right


@pytest.mark.parametrize("batch", [(), (3,)])
def test_preconditioning_is_the_dense_product(batch: tuple[int, ...]) -> None:
    x, _, by, f_left, f_right = case(batch)
    torch.testing.assert_close(precondition_(x.clone(), by), f_left @ x @ f_right)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_inner_products_are_the_dense_ones(batch: tuple[int, ...]) -> None:
    x, y, by, f_left, f_right = case(batch)
    dense = (x * (f_left @ y @ f_right)).sum(dim=(-2, -1))
    whole = (x * y).sum(dim=(-2, -1))
    thin = inner_product(whole, thin_parts(x, by), thin_parts(y, by), by)
    torch.testing.assert_close(thin, dense)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_lines_of_zeros_stay_so_and_change_nothing_else(batch: tuple[int, ...]) -> None:
    by = FactorPowers(
        orthonormal(*batch, 9, 3), torch.rand(*batch, 3).double() - 1,
        orthonormal(*batch, 7, 2), torch.rand(*batch, 2).double() - 1,
    )  # fmt: skip
    x = torch.randn(*batch, 9, 7, dtype=torch.float64)
    x[..., [1, 4], :] = 0.0
    x[..., :, [0, 6]] = 0.0
    dead = x == 0
    left = torch.eye(9).double() + (by.left * by.left_gains.unsqueeze(-2)) @ by.left.mT
    right = torch.eye(7).double() + (by.right * by.right_gains.unsqueeze(-2)) @ by.right.mT
    expected = (left @ x @ right).masked_fill(dead, 0.0)
    whitened = precondition_(x.clone(), by)
    torch.testing.assert_close(whitened, expected)
    assert not bool(whitened[dead].any())


def test_a_line_with_entries_that_the_basis_does_not_see_is_whitened() -> None:
    left = torch.zeros(6, 2, dtype=torch.float64)
    left[:4] = orthonormal(4, 2)
    by = FactorPowers(left, torch.tensor([-0.5, -0.9]).double(), orthonormal(5, 3),
                      torch.tensor([-0.3, -0.6, -0.8]).double())  # fmt: skip
    x = torch.randn(6, 5, dtype=torch.float64)
    x[:4, 2] = 0.0  # U'X is zero in this column, which is new: a word's first appearance
    a = torch.eye(6).double() + (left * by.left_gains) @ left.T
    b = torch.eye(5).double() + (by.right * by.right_gains) @ by.right.T
    torch.testing.assert_close(precondition_(x.clone(), by), a @ x @ b)
