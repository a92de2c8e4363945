"""Trained networks that several tests share."""

from __future__ import annotations

import pytest
from trained_networks import Solutions, trained

from optiscope.problems import digits


@pytest.fixture(scope="session")
def perceptrons() -> Solutions:
    """Three solutions of digits_mlp, trained on all samples; the risk is that of 300."""
    return trained(digits.digits_mlp, (1, 2, 3), 20, 0.1, samples=300)


@pytest.fixture(scope="session")
def residual_networks() -> Solutions:
    """Two solutions of digits_resnet, which has batch norm."""
    return trained(digits.digits_resnet, (1, 2), 4, 0.1, samples=300)
