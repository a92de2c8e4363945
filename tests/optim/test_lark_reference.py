"""Lark against its slow reference, step by step, and in the limits that are other methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optiscope.optim.lark.factors import (
    Block,
    FactorPowers,
    first_block,
    gains,
    precondition_,
    renew,
)
from optiscope.optim.lark.optimizer import Lark
from reference.lark import ReferenceLark


def noisy_quadratics(shapes: list[tuple[int, int]]) -> tuple[list[nn.Parameter], list[Tensor]]:
    """Weights to find, and where their minimum lies."""
    weights = [nn.Parameter(torch.randn(*shape, dtype=torch.float64)) for shape in shapes]
    return weights, [torch.randn_like(w) for w in weights]


def gradients_of(weights: list[Tensor], minima: list[Tensor], noise: list[Tensor]) -> list[Tensor]:
    """Of 0.5 sum_ij s_i t_j (W - W*)_ij^2, plus noise of the same shape."""
    found = []
    for w, minimum, e in zip(weights, minima, noise, strict=True):
        rows = 0.5 ** torch.arange(len(w), dtype=w.dtype)
        columns = 0.7 ** torch.arange(w.shape[1], dtype=w.dtype)
        scale = torch.outer(rows, columns)
        found.append(scale * (w.detach() - minimum) + 0.1 * scale.sqrt() * e)
    return found


SHAPES = [(6, 9), (9, 6), (6, 9), (1, 5), (5, 1), (4, 4)]


@pytest.mark.parametrize(
    ("shapes", "settings"),
    [
        (SHAPES, {}),
        (SHAPES, {"horizon": 60, "weight_decay": 0.5}),
        (SHAPES, {"horizon": 3600, "lr": 50.0}),
        (SHAPES, {"horizon": 3600, "lr": 0.25}),
        (SHAPES, {"renew_every": 1, "power": 0.25, "memory": 10.0, "growth": 0.02}),
    ],
)
def test_full_rank_renewed_each_step_is_the_reference(
    shapes: list[tuple[int, int]], settings: dict[str, Any]
) -> None:
    weights, minima = noisy_quadratics(shapes)
    settings = {"rank": 9, "renew_every": 1, **settings}
    reference = ReferenceLark(weights, **settings)
    fast = Lark(weights, gather_every=1, total_steps=settings.pop("horizon", None), **settings)
    for _ in range(50):
        noise = [torch.randn_like(w) for w in weights]
        for w, g in zip(weights, gradients_of(weights, minima, noise), strict=True):
            w.grad = g
        reference.step(gradients_of(reference.weights, minima, noise))
        fast.step()
        for w, expected in zip(weights, reference.weights, strict=True):
            torch.testing.assert_close(w.detach(), expected, rtol=1e-6, atol=1e-8)
    for log, expected in zip(fast.get_log(), reference.log_lengths, strict=True):
        assert log.length == pytest.approx(torch.tensor(expected).exp().item(), rel=1e-6)


def test_sides_up_to_a_size_are_kept_whole() -> None:
    """With the bits of a rank that reaches them; rank is for the others."""
    weights, minima = noisy_quadratics([(6, 9), (9, 6), (1, 5), (6, 30)])
    others = [nn.Parameter(w.detach().clone()) for w in weights]
    whole, high = Lark(weights, rank=2, full_up_to=9), Lark(others[:3], rank=9)
    for _ in range(30):
        noise = [torch.randn_like(w) for w in weights]
        for mine in (weights, others):
            for w, g in zip(mine, gradients_of(mine, minima, noise), strict=True):
                w.grad = g
        whole.step()
        high.step()
    assert all(torch.equal(p, q) for p, q in zip(weights[:3], others, strict=False))
    kept = [(len(log.left_values), len(log.right_values)) for log in whole.get_log()]
    assert kept == [(6, 9), (9, 6), (1, 5), (6, 2)]


def test_low_rank_stays_near_the_reference_with_exact_eigenvectors() -> None:
    weights, minima = noisy_quadratics([(20, 30)])
    reference = ReferenceLark(weights, rank=5, renew_every=10)
    fast = Lark(weights, rank=5, renew_every=10, gather_every=1)
    for _ in range(50):
        noise = [torch.randn_like(w) for w in weights]
        # Both see the same gradients, those at the reference's weights.
        gradient = gradients_of(reference.weights, minima, noise)
        before = [w.detach().clone() for w in weights], [w.clone() for w in reference.weights]
        for w, g in zip(weights, gradient, strict=True):
            w.grad = g
        reference.step(gradient)
        fast.step()
        moves = (weights[0].detach() - before[0][0], reference.weights[0] - before[1][0])
        cosine = (moves[0] * moves[1]).sum() / (moves[0].norm() * moves[1].norm())
        assert cosine > 0.9
    held = fast.get_log()[0]
    exact = torch.linalg.eigvalsh(reference.left[0]).flip(0)
    assert sum(held.left_values) == pytest.approx(float(exact[:5].sum()), rel=0.2)
    assert held.left_share == pytest.approx(float(exact[:5].sum() / exact.sum()), abs=0.1)


@pytest.mark.parametrize("settings", [{"rank": 0, "full_up_to": 9}, {"power": 0.0}])
def test_without_statistics_it_is_normalised_momentum(settings: dict[str, float]) -> None:
    weight = nn.Parameter(torch.randn(5, 8, dtype=torch.float64))
    optimizer = Lark([weight], total_steps=100, growth=0.0, **settings)
    expected, momentum = weight.detach().clone(), torch.zeros(5, 8, dtype=torch.float64)
    for step in range(20):
        weight.grad = torch.randn_like(weight)
        momentum = 0.95 * momentum + 0.05 * weight.grad
        ahead = 0.95 * momentum + 0.05 * weight.grad
        expected = expected - (1 - step / 100) / 30 * 5**0.5 * ahead / ahead.norm()
        optimizer.step()
        torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5)])
def test_one_full_side_of_one_matrix_orthogonalises_it(shape: tuple[int, int]) -> None:
    """(M M')^-1/2 M = U V', what Muon's Newton-Schulz iteration approximates."""
    matrix = torch.randn(*shape, dtype=torch.float64)
    wide = shape[0] <= shape[1]
    read = matrix if wide else matrix.mT
    d = len(read)
    start = first_block(read, d)
    block, values = renew(Block(start.basis, read @ read.mT @ start.basis))
    coefficients, _ = gains(values, values.sum(), d, 0.5)
    nothing = torch.zeros(read.shape[1], 0, dtype=torch.float64), torch.zeros(0).double()
    direction = precondition_(read.clone(), FactorPowers(block.basis, coefficients, *nothing))
    u, _, v = torch.linalg.svd(read, full_matrices=False)
    scale = direction.norm() / d**0.5
    torch.testing.assert_close(direction / scale, u @ v)
