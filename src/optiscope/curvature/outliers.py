"""How many eigenvalues stand out from the bulk, with an interval and the edge that was used.

Three rules, because there is no single one:

- ``edge``: the bulk's edge is where the spacing of neighbors stops being the bulk's own. Spacings
  of a bulk are exponential with a common mean, so that a gap t times the mean of the n below it
  has the p-value (1 + t / n)^-n. The lowest gap with p below 1 % and of at least 5 % of its value
  is the edge.
- ``gap``: the largest ratio of neighbors.
- ``threshold``: a number that you give.

The interval is a bootstrap over groups of samples: each eigenvalue moves, to first order, with
its Rayleigh quotients, and the rule is applied again.

Index legend: k pairs, G groups of samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from optiscope.curvature.density import Density
from optiscope.curvature.eigenpairs import Eigenpairs
from optiscope.errors import OptiscopeError
from optiscope.hints import did_you_mean

__all__ = ["OutlierCount", "OutlierError", "count_outliers"]

Rule = Literal["edge", "gap", "threshold"]

_SIGNIFICANT = 0.01
_SEPARATED = 1.05  # least ratio of the neighbors at an edge
_BEYOND_THE_LIST = 1.5  # the same where the lower neighbor is known from the density alone
_TAIL = 4  # spacings that a bulk must show to have a mean
_WINDOW = 15  # spacings next to the gap that its mean is taken of
_COMPARABLE = 0.5  # gaps of at least this share of the largest, in logarithms, might be it as well
_RESAMPLES = 400


class OutlierError(OptiscopeError, ValueError):
    """What was asked of the count cannot be done."""


@dataclass(frozen=True)
class OutlierCount:
    """How many eigenvalues lie above the edge of the bulk.

    Attributes:
        count: eigenvalues above ``threshold``.
        low: lower end of the interval.
        high: upper end of the interval.
        threshold: the edge: between the last outlier and the first of the bulk.
        rule: what found it.
        level: of the interval.
        reason: how, in words, and what the interval does not cover.
    """

    count: int
    low: int
    high: int
    threshold: float
    rule: Rule
    level: float
    reason: str

    def __int__(self) -> int:
        return self.count

    def __str__(self) -> str:
        return f"{self.count} outliers ({self.low} to {self.high}): {self.reason}"


def count_outliers(
    pairs: Eigenpairs,
    density: Density | None = None,
    rule: Rule | None = None,
    *,
    threshold: float | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> OutlierCount:
    """Number of large positive eigenvalues that stand out from the bulk.

    Args:
        pairs: the largest ones; the list should reach into the bulk.
        density: of the same operator with ``pairs`` deflated; it continues the list, so that the
            bulk is seen where the list itself ends too early.
        rule: None: ``threshold`` where one is given, else ``edge``, else ``gap`` where the list
            shows too little of the bulk to fit it.
        threshold: for the rule of that name.
        level: of the interval.
        seed: of the bootstrap.

    Raises:
        OutlierError: an unknown rule, or a rule without what it needs.
    """
    if not isinstance(pairs, Eigenpairs):
        raise OutlierError(
            f"expected eigenpairs, got {type(pairs).__name__}: pass what top_eigenpairs returns"
        )
    rules = ("edge", "gap", "threshold")
    if rule is not None and rule not in rules:
        raise OutlierError(
            f"expected rule to be one of {', '.join(rules)}, got {str(rule)[:80]!r}: "
            f"{did_you_mean(rule, rules)}"
        )
    if (rule == "threshold") != (threshold is not None) and rule is not None:
        raise OutlierError("expected a threshold with rule='threshold', and only there")
    if pairs.which == "smallest":
        raise OutlierError("expected the largest eigenpairs, got the smallest ones")
    values = pairs.values.double().numpy(force=True)
    if not np.isfinite(values).all():
        raise OutlierError("expected finite eigenvalues, got some that are not")
    order = np.argsort(-values, kind="stable")
    values = values[order]
    chosen: Rule = "threshold"
    if threshold is not None:
        edge, words = threshold, "above the threshold that was given"
        comparable: set[int] = set()
    else:
        edge, chosen, words, comparable = _edge_of(values, density, rule)
    counts = comparable | _resampled(pairs, order, density, chosen, threshold, level, seed)
    count = int((values > edge).sum())
    notes = [words]
    if count == len(values) and density is None:
        notes.append("all pairs stand out: ask for more of them, there may be more outliers")
    if not bool(pairs.converged.all()):
        notes.append("not all pairs have converged, or copies were not checked for")
    if pairs.group_values is None:
        notes.append("no error from the data (a single batch, or no samples)")
    return OutlierCount(
        count=count,
        low=min({count, *counts}),
        high=max({count, *counts}),
        threshold=float(edge),
        rule=chosen,
        level=level,
        reason="; ".join(notes),
    )


def _edge_of(
    values: np.ndarray, density: Density | None, rule: Rule | None
) -> tuple[float, Rule, str, set[int]]:
    """Edge, rule, words, and other counts that are as good."""
    if rule != "gap":
        edge = _fitted_edge(values, density)
        if edge is not None:
            place, p, ratio = edge
            words = (
                f"the bulk ends at {place:.4g}: the gap there is a factor of {ratio:.2f}, which "
                f"the spacing of the bulk below it explains with p = {p:.1g}"
            )
            return place, "edge", words, set()
        if rule == "edge":
            return math.inf, "edge", "no gap stands out from the spacing of the bulk", {0}
    place, chosen, words, comparable = _largest_gap(values, density)
    if rule is None:
        words += "; the list shows too little of the bulk to fit its edge"
    return place, chosen, words, comparable


def _continued(values: np.ndarray, density: Density | None) -> np.ndarray:
    """The list, continued by quantiles of the density below it."""
    positive = values[values > 0]
    if density is None:
        return positive
    nodes = torch.cat(density.nodes).numpy()
    weights = torch.cat(density.weights).numpy() * density.size / len(density.runs)
    order = np.argsort(-nodes)
    cumulated = np.cumsum(weights[order])
    ranks = np.arange(1, _WINDOW + 2) - 0.5
    places = np.searchsorted(cumulated, ranks)
    places = places[places < len(nodes)]
    # Ritz values are averages over what lies about them: the first quantile is pulled inward, so
    # the largest node stands for the largest eigenvalue of the rest.
    rest = np.sort(np.concatenate([[nodes.max()], nodes[order][places[1:]]]))[::-1]
    rest = rest[(rest > 0) & (rest <= values.min())]
    return np.concatenate([positive, rest])


def _fitted_edge(values: np.ndarray, density: Density | None) -> tuple[float, float, float] | None:
    """Edge, p-value and ratio of the lowest gap that the spacing below it does not explain."""
    chain = _continued(values, density)
    last = min(len(chain) - 1 - _TAIL, len(values))
    for j in range(last, 0, -1):
        upper, lower = chain[j - 1], chain[j]
        below = -np.diff(chain[j : j + 1 + _WINDOW])
        mean = below.mean()
        n = len(below)
        t = (upper - lower) / mean if mean > 0 else math.inf if upper > lower else 0.0
        p = (1 + t / n) ** -n
        # Below the list there are only Ritz values, which lie short of the eigenvalues.
        least = _SEPARATED if j < len(values) else _BEYOND_THE_LIST
        if p < _SIGNIFICANT and upper > least * lower:
            return _between(upper, lower), float(p), float(upper / lower)
    return None


def _between(upper: float, lower: float) -> float:
    """Geometric mean, also where the product leaves the range of numbers."""
    return float(math.sqrt(upper) * math.sqrt(lower))


def _largest_gap(values: np.ndarray, density: Density | None) -> tuple[float, Rule, str, set[int]]:
    chain = _continued(values, density)[: len(values) + 1]
    if len(chain) < 2:
        edge = 0.0
        words = "fewer than two positive eigenvalues: there is no bulk to stand out from"
        return edge, "gap", words, {len(chain)}
    if len(chain) < len(values):  # the list reaches into the negative ones
        chain = np.append(chain, max(1e-6 * chain[0], np.finfo(float).tiny))
    ratios = np.log(chain[:-1] / chain[1:])
    j = int(ratios.argmax())
    if ratios[j] <= 0:
        return 0.0, "gap", "all eigenvalues are equal: there is no gap", {len(values)}
    comparable = {int(i) + 1 for i in np.flatnonzero(ratios >= _COMPARABLE * ratios[j])}
    words = f"the largest gap is a factor of {math.exp(ratios[j]):.2f}"
    return _between(chain[j], chain[j + 1]), "gap", words, comparable


def _resampled(
    pairs: Eigenpairs,
    order: np.ndarray,
    density: Density | None,
    rule: str,
    threshold: float | None,
    level: float,
    seed: int,
) -> set[int]:
    """Ends of the bootstrap's interval for the count."""
    if pairs.group_values is None:
        return set()
    generator = np.random.default_rng(seed)
    shares = np.asarray(pairs.shares)
    groups = len(shares)
    parts = pairs.group_values.numpy(force=True)[:, order]
    counts = []
    for _ in range(_RESAMPLES):
        weights = shares * generator.multinomial(groups, np.full(groups, 1 / groups))
        values = np.sort(weights @ parts / weights.sum())[::-1]
        if threshold is not None:
            edge = threshold
        else:
            edge = _edge_of(values, density, "gap" if rule == "gap" else None)[0]
        counts.append(int((values > edge).sum()))
    ends = np.quantile(counts, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return {int(end) for end in ends}
