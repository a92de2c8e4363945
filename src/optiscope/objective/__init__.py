"""The loss as a function of the parameters: gradients, products, guards for a second look."""

from optiscope.objective.evaluation import NonDeterministicLossError
from optiscope.objective.products import (
    FlatParameters,
    check_repeatable,
    difference_product,
    graph_product,
)

__all__ = [
    "FlatParameters",
    "NonDeterministicLossError",
    "check_repeatable",
    "difference_product",
    "graph_product",
]
