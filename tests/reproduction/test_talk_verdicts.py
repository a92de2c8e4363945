"""Verdicts of the talk's experiments on rows whose answer is known."""

from __future__ import annotations

import pytest

from optiscope.reproduction.talk import large_batch
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
