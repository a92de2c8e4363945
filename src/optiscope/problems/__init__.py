"""Problems: a model, its loss, its data with fixed splits, a batch size and a horizon.

Importing this package does not import torch; the contract's names load it on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optiscope import lazy
from optiscope.problems.catalogue import Entry as Entry
from optiscope.problems.registry import UnknownProblemError as UnknownProblemError
from optiscope.problems.registry import entries as entries
from optiscope.problems.registry import get as get
from optiscope.problems.registry import names as names

if TYPE_CHECKING:
    from optiscope.problems.problem import Baseline as Baseline
    from optiscope.problems.problem import Metric as Metric
    from optiscope.problems.problem import ParamGroup as ParamGroup
    from optiscope.problems.problem import Problem as Problem
    from optiscope.problems.problem import all_parameters as all_parameters
    from optiscope.problems.problem import l2_on_weights as l2_on_weights
    from optiscope.problems.problem import regularization as regularization

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "catalogue": ("Entry",),
        "problem": (
            "Baseline",
            "Metric",
            "ParamGroup",
            "Problem",
            "all_parameters",
            "l2_on_weights",
            "regularization",
        ),
        "registry": ("UnknownProblemError", "entries", "get", "names"),
    },
)
