"""Momentum and Nesterov: from κ to √κ.

In a valley of condition number κ gradient descent needs of the order of κ steps, momentum of the
order of √κ. Polyak's heavy ball with its best settings shortens the error by (√κ - 1) / (√κ + 1)
a step; Nesterov's method, which takes the gradient ahead of the step, by √(1 - 1/√κ), and that
also where the loss is convex but not quadratic.
"""

import math
from functools import partial

import numpy as np
from torch.optim import SGD

from optiscope.problems.textbook.ill_conditioned import (
    best_gradient_descent,
    best_heavy_ball,
    ill_conditioned_quadratic,
)
from optiscope.problems.textbook.loss_grid import loss_grid
from optiscope.problems.textbook.trajectory import trajectory
from optiscope.report.figures.textbook import Ground, Walk, landscape_figure

kappa, steps = 100.0, 150
problem = ill_conditioned_quadratic(kappa)
plain, heavy = best_gradient_descent(kappa), best_heavy_ball(kappa)
ahead = (math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1)
walks = {
    "gradient descent": trajectory(problem, partial(SGD, lr=plain.lr), steps),
    "heavy ball": trajectory(problem, partial(SGD, lr=heavy.lr, momentum=heavy.momentum), steps),
    "Nesterov": trajectory(problem, partial(SGD, lr=1.0, momentum=ahead, nesterov=True), steps),
}

# %%
# ## Measured against theory
#
# The error per step, from the norm of the parameters over the last hundred steps.


def contraction(path):
    """Mean factor by which a step shortens the distance from the minimum."""
    distance = np.linalg.norm(path.points, axis=1)
    return (distance[150] / distance[50]) ** (1 / 100)


assert abs(contraction(walks["gradient descent"]) - plain.contraction) < 1e-6
assert abs(contraction(walks["heavy ball"]) - heavy.contraction) < 0.02
assert contraction(walks["Nesterov"]) < math.sqrt(1 - 1 / math.sqrt(kappa)) + 0.02
assert walks["heavy ball"].losses[-1] < 1e-8 < walks["gradient descent"].losses[-1]

u, v = np.linspace(-1.3, 1.3, 161), np.linspace(-0.8, 1.2, 161)
figure = landscape_figure(
    f"Condition number {kappa:.0f}: {plain.contraction:.2f} a step, with momentum "
    f"{heavy.contraction:.2f}",
    Ground(u, v, loss_grid(problem, u, v), minima=[(0.0, 0.0)]),
    {label: Walk(path.points, path.losses) for label, path in walks.items()},
)
figure.savefig("momentum.png", dpi=110)
