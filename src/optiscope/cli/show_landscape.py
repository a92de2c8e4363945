"""The landscape of a problem with two parameters, with the paths of chosen optimizers over it."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from optiscope.cli.options import parse_rule
from optiscope.optim import registry
from optiscope.problems import Problem
from optiscope.problems.textbook.loss_grid import loss_grid
from optiscope.problems.textbook.trajectory import Trajectory, trajectory
from optiscope.report.figures.textbook import Ground, Walk, landscape_figure

__all__ = ["landscape", "paths"]

POINTS = 161
"""Of the grid, along each axis."""

AROUND = 1.5
"""Without a path, as many times the start's largest coordinate, or one, is drawn around zero."""

FARTHEST = 4.0
"""A path is drawn as far as this many times the distance of the others' ends."""


def paths(
    problem: Problem, optimizers: tuple[str, ...], steps: int, clip: float | None
) -> dict[str, Trajectory]:
    """Where each optimizer, such as ``sgd,lr=0.1``, goes from the problem's start.

    Raises:
        UnknownOptimizerError, BadSettingsError: what an optimizer is not or does not take.
    """
    found = {}
    for text in optimizers:
        settings = parse_rule(text)
        name = settings.pop("name")
        bound = registry.bind(name, settings)

        def make(groups: list[dict[str, Any]], bound: registry.BoundOptimizer = bound) -> Any:
            return bound(groups, horizon=steps, steps_per_epoch=steps)

        found[text] = trajectory(problem, make, steps, clip=clip, closure=bound.closure)
    return found


def landscape(problem: Problem, walked: dict[str, Trajectory]) -> Figure:
    """The ground around the paths, and the loss along each; without paths, around zero."""
    start = problem_start(problem)
    if not walked:
        half = AROUND * max(1.0, float(np.abs(start).max()))
        return _drawn(problem, [np.linspace(-half, half, POINTS)] * 2, {}, start)
    reach = [np.abs(t.points - start).max() for t in walked.values()]
    side = min(max(reach), FARTHEST * float(np.median(reach))) or 1.0
    points = np.concatenate([t.points for t in walked.values()])
    near = points[(np.abs(points - start) <= side * (1 + 1e-9)).all(1)]
    low, high = near.min(0), near.max(0)
    margin = 0.15 * max(float((high - low).max()), 0.5 * side)
    axes = [np.linspace(a - margin, b + margin, POINTS) for a, b in zip(low, high, strict=True)]
    return _drawn(problem, axes, walked, start)


def _drawn(problem: Problem, axes: list[Any], walked: dict[str, Trajectory], start: Any) -> Figure:
    names = ("parameter 1", "parameter 2")
    ground = Ground(axes[0], axes[1], loss_grid(problem, *axes), names=names)
    walks = {label: Walk(t.points, t.losses) for label, t in walked.items()}
    figure = landscape_figure(problem.name, ground, walks)
    if not walks:
        figure.axes[0].plot(*start, marker="o", markersize=6, markerfacecolor="w", color="black")
        figure.axes[0].annotate("start", start, (6, 6), textcoords="offset points", fontsize=8.5)
    return figure


def problem_start(problem: Problem) -> Any:
    """Initial parameters [2]."""
    from torch.nn.utils import parameters_to_vector

    trainable = [p for p in problem.make_model().parameters() if p.requires_grad]
    return parameters_to_vector(trainable).detach().double().numpy()
