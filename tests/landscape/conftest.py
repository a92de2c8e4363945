"""Trained networks that several tests share."""

from __future__ import annotations

import pytest
from trained_networks import Solutions, trained

from optiscope.problems import digits


@pytest.fixture(scope="session")
def perceptrons() -> Solutions:
    """Three converged solutions of digits_mlp."""
    return trained(digits.digits_mlp, (1, 2, 3), 25, 0.1)


@pytest.fixture(scope="session")
def residual_networks() -> Solutions:
    """Two solutions of digits_resnet, which has batch norm."""
    return trained(digits.digits_resnet, (1, 2), 4, 0.1, samples=300)
