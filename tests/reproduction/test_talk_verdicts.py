"""Verdicts of the talk's experiments on rows whose answer is known."""

from __future__ import annotations

import pytest
import torch

from optiscope.reproduction.talk import large_batch, mean_field, two_phase
from optiscope.reproduction.talk.experiment import Measured


@pytest.mark.parametrize(
    ("small", "large", "word"),
    [
        ({0.1: [1.0, 2.0], 0.2: [1.0, 1.5]}, {0.1: [3.0, 4.0], 0.4: [2.5, 2.6]}, "supported"),
        ({0.1: [1.0, 2.0], 0.2: [1.0, 1.5]}, {0.1: [3.0, 4.0], 0.4: [1.2, 1.3]}, "refused"),
        ({0.1: [5.0, 6.0], 0.2: [5.0, 5.5]}, {0.1: [3.0, 4.0], 0.4: [1.2, 1.3]}, "contradicted"),
        ({0.1: [1.0], 0.2: [1.0]}, {0.1: [3.0]}, "refused"),  # one rate: not varied
        ({0.1: [1.0]}, {0.1: [3.0]}, "refused"),
        ({}, {}, "refused"),
    ],
)
def test_a_claim_on_batches_must_hold_whatever_the_rates(
    small: dict[float, list[float]], large: dict[float, list[float]], word: str
) -> None:
    """Guide, bar 16."""
    assert large_batch.verdict(small, large)[0] == word


def test_a_rate_at_which_a_seed_missed_the_loss_does_not_count() -> None:
    def row(rate: float, seed: int, value: float | None) -> Measured:
        cell = {"batch": 16, "rate": rate, "seed": seed}
        if value is None:
            return Measured(cell, {"reached": False})
        return Measured(cell, {"reached": True, "converged": True, "eigenvalues": [value]})

    rows = [row(0.1, 0, 1.0), row(0.1, 1, 2.0), row(0.2, 0, 1.0), row(0.2, 1, None)]
    assert large_batch.by_rate(rows, 16) == {0.1: [1.0, 2.0]}


def test_the_mean_field_gradient_is_right() -> None:
    cell = {"width": 4, "rate": 0.3, "steps": 1, "samples": 6, "batch": 6}
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(6, 3), torch.randn(6)
    weights, outputs = torch.randn(4, 3), torch.randn(4)
    w, a = weights.clone().requires_grad_(), outputs.clone().requires_grad_()
    loss = (mean_field._output(w, a, inputs) - targets).square().mean()
    g_w, g_a = torch.autograd.grad(loss, (w, a))
    moved_w, moved_a = mean_field._descend(cell, (weights, outputs), inputs, targets, 6, generator)
    assert torch.allclose(moved_w, weights - 0.3 * 4 * g_w, atol=1e-6)
    assert torch.allclose(moved_a, outputs - 0.3 * 4 * g_a, atol=1e-6)


def test_a_slope_has_its_error() -> None:
    exact = {n: [n**-0.5, n**-0.5] for n in (10, 100, 1000)}
    assert mean_field.slope(exact) == pytest.approx((-0.5, 0.0), abs=1e-7)
    value, error = mean_field.slope({10: [1.0, 2.0], 100: [1.0, 2.0]})
    assert value == pytest.approx(0.0, abs=1e-9)
    assert error > 0.1


def test_a_barrier_on_the_line_is_told() -> None:
    def row(barrier: float) -> Measured:
        curve = [1.0, 0.5, 0.1]
        return Measured(
            {**two_phase.SMALL, "seed": 0},
            {
                "coefficients": [0.0, 0.5, 1.0], "train_loss": curve, "test_loss": curve,
                "train_accuracy": curve, "test_accuracy": curve, "barrier": barrier,
                "distance": 1.0, "ends": [1.0, 0.1],
            },
        )  # fmt: skip

    assert two_phase.sections([row(0.0)])[0].conclusions[0][1] == "holds here"
    assert two_phase.sections([row(0.0), row(0.3)])[0].conclusions[0][1] == "does not hold here"
