"""Verdicts of the talk's experiments on rows whose answer is known."""

from __future__ import annotations

import pytest
import torch

from optiscope.reproduction.talk import (
    connected,
    ingredients,
    large_batch,
    mean_field,
    memorization,
    same_basin,
    two_phase,
)
from optiscope.reproduction.talk.beside import paired
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


def test_paired_differences_have_their_interval() -> None:
    found = paired([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
    reach = 4.302652729911275 * 1.0 / 3**0.5  # t quantile with two degrees of freedom
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2.0 - reach, 2.0 + reach))
    assert found.undecided
    assert not paired([3.0, 4.0, 5.0], [1.0, 2.0, 3.1]).undecided
    assert paired([1.0], [0.0]).undecided  # a single pair decides nothing
    assert "no interval" in paired([1.0], [0.0]).words("x")


@pytest.mark.parametrize(
    ("accuracy", "loss", "fall"),
    [
        ([0.5, 1.0, 1.0, 1.0], [2.0, 1.0, 0.5, 0.1], 0.1),
        ([0.5, 0.9, 1.0, 1.0], [2.0, 1.0, 0.5, 0.1], None),  # too short a stretch
        ([0.9, 0.9, 0.9], [1.0, 1.0, 1.0], 1.0),
    ],
)
def test_what_the_loss_does_while_the_accuracy_stands_still(
    accuracy: list[float], loss: list[float], fall: float | None
) -> None:
    found = memorization._fall({"accuracy": accuracy, "loss": loss})
    assert found == (None if fall is None else pytest.approx(fall))


def connected_row(width: int, barrier: float, fall: float, converged: bool) -> Measured:
    return Measured(
        {**connected.SMALL, "width": width, "pair": 0},
        {
            "parameters": 10, "barrier": barrier, "line_barrier": 1.0, "losses": [0.1, 0.1],
            "falls": [fall, 0.0], "converged": converged, "gradients": 5,
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "word", "evidence"),
    [
        ([(3, 1.0, 0.0, True), (5, 0.0, 0.0, True), (9, 0.0, 0.0, True)], "holds", "width 5"),
        ([(3, 0.0, 0.0, True), (9, 1.0, 0.0, True)], "does not hold", "widths 9"),
        ([(3, 0.0, 0.5, True), (9, 0.0, 0.5, True)], "refused", "still fall: 3, 9"),
    ],
)
def test_from_which_width_on_solutions_are_connected(
    rows: list[tuple[int, float, float, bool]], word: str, evidence: str
) -> None:
    (section,) = connected.sections([connected_row(*row) for row in rows])
    _, verdict, words = section.conclusions[0]
    assert verdict.startswith(word)
    assert evidence in words


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([(True, True, 0.0)] * 4, "holds here"),
        ([(True, True, 0.0)] * 3 + [(False, True, 0.0)], "does not hold here"),
        ([(True, True, 0.0)] * 3 + [(False, False, 0.0)], "undecided"),
        ([(True, True, 1.0)] * 4, "refused"),  # ends still fall
    ],
)
def test_one_basin_needs_converged_ends_and_paths(
    rows: list[tuple[bool, bool, float]], verdict: str
) -> None:
    cells = same_basin.cells("small")
    zeros = [[0.0] * 3 for _ in range(3)]
    measured = [
        Measured(
            cell,
            {
                "losses": [0.0] * 3, "falls": [fall, 0.0, 0.0], "barriers": zeros,
                "line_barriers": zeros, "heights": zeros, "converged": converged, "same": same,
            },
        )
        for cell, (same, converged, fall) in zip(cells, rows, strict=False)
    ]  # fmt: skip
    (section,) = same_basin.sections(measured)
    assert section.conclusions[0][1] == verdict


def test_an_ingredient_counts_where_its_interval_leaves_zero_out() -> None:
    accuracy = {"nothing": (0.90, 0.91, 0.92), "momentum": (0.80, 0.82, 0.81),
                "weight decay": (0.95, 0.85, 0.92), "preprocessing": (0.99, 0.99, 0.992),
                "all three": (0.1, 0.1, 0.1)}  # fmt: skip
    measured = [
        Measured(cell, {"test_accuracy": accuracy[cell["removed"]][cell["seed"]]})
        for cell in ingredients.cells("small")
    ]
    (section,) = ingredients.sections(measured)
    verdicts = [verdict for _, verdict, _ in section.conclusions]
    assert verdicts == ["holds here", "undecided", "does not hold here", "holds here"]
    assert section.tables[0].rows[0].cells[1].text == "93.1"
