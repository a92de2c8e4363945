"""Every problem conforms; those whose data must be at hand are slow tests."""

from __future__ import annotations

import pytest

from optiscope.problems import entries
from optiscope.testing.problems import ProblemConformance

AT_HAND = {"mnist", "fashion_mnist", "cifar10", "tolstoi"}
SHIPPED = {"digits", "synthetic"}
LARGE = {"cifar10_vgg16", "cifar10_vgg19"}
"""Over 100 million parameters: a few training steps in the slow suite, not the whole suite."""

SMALL_BATCH = {"cifar10_wrn404", "cifar10_wrn164", "cifar10_resnet56", "cifar10_allcnnc"}


def _suite(name: str) -> type[ProblemConformance]:
    batch = 3 if name in SMALL_BATCH else 8
    return type(f"Test_{name}", (ProblemConformance,), {"problem": name, "batch": batch})


for _entry in entries():
    if _entry.dataset in SHIPPED:
        globals()[f"Test_{_entry.name}"] = _suite(_entry.name)
    elif _entry.dataset in AT_HAND and _entry.name not in LARGE:
        _marked = pytest.mark.slow(pytest.mark.usefixtures("real_data")(_suite(_entry.name)))
        globals()[f"Test_{_entry.name}"] = _marked
