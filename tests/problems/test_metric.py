"""The name of a metric says which way is better, because records keep nothing else."""

from __future__ import annotations

import pytest
from torch import Tensor

from optiscope.problems import Metric


def value(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


@pytest.mark.parametrize(("name", "rises"), [("distance", False), ("time", False)])
def test_a_figure_that_should_fall_must_be_called_a_loss(name: str, rises: bool) -> None:
    with pytest.raises(ValueError, match="end in 'loss', 'error'"):
        Metric(name, value, higher_is_better=rises)


def test_a_loss_cannot_rise() -> None:
    with pytest.raises(ValueError, match="should rise"):
        Metric("focal_loss", value, higher_is_better=True)


@pytest.mark.parametrize(
    ("name", "rises"),
    [("accuracy", True), ("zero_one_loss", False), ("error", False), ("test_mae", False)],
)
def test_a_name_that_fits_is_taken(name: str, rises: bool) -> None:
    assert Metric(name, value, higher_is_better=rises).name == name
