"""Names of algorithms say what was compared."""

from __future__ import annotations

from typing import Any

import pytest

from optiscope.stats.naming import algorithm_name, short_number
from stats.small_study import algorithm

WIDE = {"lr": {"low": 1e-5, "high": 1e-1, "log": True}}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "1e-5"),
        (0.1, "0.1"),
        (5e-4, "0.0005"),
        (128, "128"),
        (1.0, "1"),
        (1e12, "1e12"),
        (True, "True"),
        ("sum", "sum"),
        (0.123456, "0.1235"),
    ],
)
def test_short_numbers(value: Any, text: str) -> None:
    assert short_number(value) == text


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (algorithm("Adam"), "Adam(lr log[1e-5, 0.1]; budget 4 by grid)"),
        (
            algorithm("wide", optimizer="adam", fixed={"weight_decay": 0.01}, budget=8),
            "wide = adam(lr log[1e-5, 0.1], weight_decay=0.01; budget 8 by grid)",
        ),
        (
            algorithm("SGD", space={}, fixed={"lr": 0.1, "nesterov": False}, sampler="none"),
            "SGD(lr=0.1, nesterov=False; untuned)",
        ),
        (algorithm("Prodigy", space={}), "Prodigy(default hyperparameters)"),
        (
            algorithm("SGD", space={"momentum": {"low": 0.5, "high": 0.99, "log": False},
                                    "nesterov": {"choice": [True, False]}}),
            "SGD(momentum [0.5, 0.99], nesterov {True, False}; budget 4 by grid)",
        ),
        (
            algorithm("mine", optimizer="my_package.my_module:Mine",
                      schedule={"name": "linear_decay", "final": 0.0}, clip={"norm": 1.0},
                      pruner={"name": "MedianPruner"}),
            "mine(lr log[1e-5, 0.1]; linear_decay final=0 schedule; norm=1 clipping; "
            "MedianPruner pruner; budget 4 by grid)",
        ),
    ],
)  # fmt: skip
def test_the_name_holds_the_space_and_the_budget(entry: dict[str, Any], name: str) -> None:
    assert algorithm_name(entry) == name


@pytest.mark.parametrize(
    "change",
    [
        {"budget": 8},
        {"sampler": "tpe"},
        {"space": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}}},
        {"fixed": {"eps": 1e-8}},
        {"schedule": {"name": "linear_decay"}},
        {"clip": {"value": 1.0}},
        {"early_stopping": {"metric": "valid_loss", "patience": 2}},
        {"pruner": {"name": "MedianPruner"}},
        {"initialisation": {"name": "he_normal"}},
    ],
)
def test_whatever_differs_shows_in_the_name(change: dict[str, Any]) -> None:
    assert algorithm_name(algorithm("Adam")) != algorithm_name(algorithm("Adam", **change))
