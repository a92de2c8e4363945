"""Whether solutions lie in one basin: barriers of all pairs, and the tree of the lowest passes.

Two solutions share a basin, at a tolerance, where a path between them rises above its higher end by
no more. The minimum spanning tree over the heights of the passes joins all solutions by the lowest
ones (Draxler et al. 2018): the highest pass on the way between two solutions in the tree is the
lowest that any chain of these paths offers.

Index legend: K solutions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optiscope.landscape.ground import (
    Checkpoint,
    Ground,
    LandscapeError,
    NotConvergedError,
    Statistics,
    state_of,
    still_falling,
)
from optiscope.landscape.path import Path, connect
from optiscope.objective.cost import Cost
from optiscope.objective.risk import EmpiricalRisk

__all__ = ["BasinMatrix", "Pass", "same_basin", "spanning_tree"]


class Pass(NamedTuple):
    """An edge of the spanning tree: the highest point of the path between two solutions."""

    first: int
    second: int
    height: float
    barrier: float


@dataclass(frozen=True)
class BasinMatrix:
    """Barriers between K solutions, and what follows from them.

    Attributes:
        barriers: highest loss on the path minus the higher end's, symmetric [K, K].
        line_barriers: the same on straight lines [K, K].
        heights: highest loss on each path [K, K]; a solution's own loss on the diagonal.
        tree: passes of the minimum spanning tree over the heights, lowest first.
        tolerance: barrier up to which two solutions share a basin.
        basins: solutions that are joined by passes within the tolerance, in groups.
        ends: the solutions, with their losses and how far each can still fall.
        converged: whether every path above the tolerance ends at a saddle; without it a high
            barrier may only mean that gradients ran out.
        paths: between each pair (i, j), i < j.
        cost: of all paths and checks.
    """

    barriers: Tensor
    line_barriers: Tensor = field(repr=False)
    heights: Tensor = field(repr=False)
    tree: tuple[Pass, ...]
    tolerance: float
    basins: tuple[tuple[int, ...], ...]
    ends: tuple[Checkpoint, ...] = field(repr=False)
    converged: bool
    paths: Mapping[tuple[int, int], Path] = field(repr=False)
    cost: Cost

    @property
    def same(self) -> bool:
        """Whether all solutions lie in one basin at the tolerance."""
        return len(self.basins) == 1

    @property
    def verdict(self) -> str:
        """The answer in one sentence, with the tolerance it holds for."""
        highest = max((edge.barrier for edge in self.tree), default=0.0)
        if self.same:
            return (
                f"same basin: {len(self.ends)} solutions are joined by paths whose highest "
                f"barrier is {highest:.3g}, within the tolerance {self.tolerance:.3g}"
            )
        reason = (
            "the paths have converged to saddles, of which lower ones may exist elsewhere"
            if self.converged
            else "some paths ran out of gradients, so that this is not shown"
        )
        return (
            f"not joined: {len(self.basins)} groups at tolerance {self.tolerance:.3g}, the lowest "
            f"passes between them up to {highest:.3g} high; {reason}"
        )


def same_basin(
    risk: EmpiricalRisk,
    solutions: Sequence[Mapping[str, Tensor]],
    *,
    tolerance: float,
    gradients: int = 1000,
    match: bool = False,
    statistics: Statistics = "recompute",
    require_converged: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> BasinMatrix:
    """Connect every pair of ``solutions`` and say whether they share a basin.

    Args:
        risk: loss, model and samples.
        solutions: state dicts, at least two.
        tolerance: largest barrier, in units of the loss, within one basin.
        gradients: evaluations allowed for each pair.
        match: permute the units of the second of each pair towards the first.
        statistics: of batch norm along the paths.
        require_converged: refuse solutions from which the loss can fall by more than the
            tolerance: from there the absence of a barrier would mean nothing.
        on_progress: told of the pairs done and of all.
        options: of `connect`.

    Raises:
        NotConvergedError: a solution is no minimum at this tolerance.
        NotReproducedError: a solution does not have its checkpoint's loss.
        LandscapeError: fewer than two solutions, or a tolerance that is not positive.
    """
    if len(solutions) < 2:
        raise LandscapeError(f"expected at least two solutions, got {len(solutions)}")
    if not 0 < tolerance < float("inf"):
        raise LandscapeError(
            f"expected a positive tolerance in units of the loss, got {tolerance!r:.80}"
        )
    begun = time.perf_counter()
    ground = Ground(risk, statistics)
    solutions = [state_of(s, f"solution {k}") for k, s in enumerate(solutions)]
    ends = [ground.checkpoint(s, f"solution {k}") for k, s in enumerate(solutions)]
    objective = ground.evaluations()
    ends = [ground.descended_from(end, objective) for end in ends]
    falling = still_falling(ends, tolerance)
    if falling and require_converged:
        worst = max(falling, key=lambda k: ends[k].fall)
        raise NotConvergedError(
            f"expected solutions that are minima to within the tolerance {tolerance:.3g}, got "
            f"solution {worst} of loss {ends[worst].loss:.4g}, from which the loss falls by "
            f"{ends[worst].fall:.2g} in a few gradients ({len(falling)} of {len(ends)} do): "
            "train further, raise the tolerance, or pass require_converged=False"
        )
    count = len(ends)
    barriers, lines = torch.zeros(count, count).double(), torch.zeros(count, count).double()
    heights = torch.diag(torch.tensor([end.loss for end in ends], dtype=torch.float64))
    paths: dict[tuple[int, int], Path] = {}
    pairs = list(combinations(range(count), 2))
    cost = Cost(
        gradients=objective.gradients, forwards=ground.forwards, seconds=time.perf_counter() - begun
    )
    for done, (i, j) in enumerate(pairs, start=1):
        path = connect(
            risk,
            solutions[i],
            solutions[j],
            gradients=gradients,
            match=match,
            statistics=statistics,
            require_converged=False,
            **options,
        )
        paths[i, j] = path
        barriers[i, j] = barriers[j, i] = path.barrier
        lines[i, j] = lines[j, i] = path.line_barrier
        heights[i, j] = heights[j, i] = path.highest
        cost = cost + path.cost
        if on_progress is not None:
            on_progress(done, len(pairs))
    tree = spanning_tree(heights)
    edges = tuple(Pass(i, j, float(heights[i, j]), float(barriers[i, j])) for i, j in tree)
    high = [path for path in paths.values() if path.barrier > tolerance]
    return BasinMatrix(
        barriers,
        lines,
        heights,
        edges,
        tolerance,
        _joined(count, [(e.first, e.second) for e in edges if e.barrier <= tolerance]),
        tuple(ends),
        all(path.converged for path in high),
        paths,
        cost,
    )


def spanning_tree(heights: Tensor) -> list[tuple[int, int]]:
    """Edges (i, j), i < j, of the minimum spanning tree over ``heights`` [K, K], lowest first.

    Kruskal's algorithm; equal heights are taken in order.
    """
    count = len(heights)
    edges = sorted(combinations(range(count), 2), key=lambda e: float(heights[e[0], e[1]]))
    parents = list(range(count))
    tree = []
    for i, j in edges:
        a, b = _root(parents, i), _root(parents, j)
        if a != b:
            parents[b] = a
            tree.append((i, j))
    return tree


def _joined(count: int, edges: Sequence[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Groups of numbers that ``edges`` join."""
    parents = list(range(count))
    for i, j in edges:
        parents[_root(parents, j)] = _root(parents, i)
    groups: dict[int, list[int]] = {}
    for k in range(count):
        groups.setdefault(_root(parents, k), []).append(k)
    return tuple(map(tuple, groups.values()))


def _root(parents: list[int], k: int) -> int:
    while parents[k] != k:
        parents[k] = parents[parents[k]]
        k = parents[k]
    return k
