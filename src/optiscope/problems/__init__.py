"""Problems: a model, its loss, its data with fixed splits, a batch size and a horizon.

Importing this package does not import torch; the contract's names load it on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from optiscope.problems.catalogue import Entry
from optiscope.problems.registry import UnknownProblemError, entries, get, names

if TYPE_CHECKING:
    from optiscope.problems.problem import (
        Baseline,
        Metric,
        ParamGroup,
        Problem,
        all_parameters,
        l2_on_weights,
        regularization,
    )

__all__ = [
    "Baseline",
    "Entry",
    "Metric",
    "ParamGroup",
    "Problem",
    "UnknownProblemError",
    "all_parameters",
    "entries",
    "get",
    "l2_on_weights",
    "names",
    "regularization",
]


def __getattr__(name: str) -> Any:
    """The contract's names, imported with torch when first asked for."""
    if name in __all__:
        return getattr(importlib.import_module("optiscope.problems.problem"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
