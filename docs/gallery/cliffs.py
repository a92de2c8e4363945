"""Cliffs: one step from the edge undoes many, and clipping prevents it.

A recurrent unit repeats one weight fifty times, so its loss has a wall. On the wall the gradient
is huge. A step along it lands on a plain without gradient, where training stays. With the norm of
the gradient clipped, the direction remains and the step is short.
"""

from functools import partial

import numpy as np
import torch
from torch.optim import SGD

from optiscope.problems import get
from optiscope.problems.textbook.cliff import cliff_edge, edge_gradient, recurrent_unit
from optiscope.problems.textbook.loss_grid import loss_grid
from optiscope.problems.textbook.trajectory import trajectory
from optiscope.report.figures.textbook import Ground, Walk, landscape_figure

problem = get("textbook_cliff")
thrown = trajectory(problem, partial(SGD, lr=3.0), 120)
held = trajectory(problem, partial(SGD, lr=3.0), 120, clip=0.1)

# %%
# ## The gradient on the edge
#
# There it is known in closed form, and autograd agrees.

edge = torch.tensor([5.0, cliff_edge(5.0)], dtype=torch.float64, requires_grad=True)
(gradient,) = torch.autograd.grad(recurrent_unit(edge), edge)
assert np.allclose(gradient.numpy(), edge_gradient(5.0), rtol=1e-4)

longest = np.linalg.norm(np.diff(thrown.points, axis=0), axis=1).max()
assert longest > 10  # one step throws it off
assert thrown.losses[-1] > 0.08  # and it stays there
assert np.linalg.norm(np.diff(held.points, axis=0), axis=1).max() < 0.31
assert held.losses[-1] < 2e-3

weights = np.array([4.2553, 7.0])
w, b = np.linspace(2.0, 7.0, 121), np.linspace(-4.0, -0.6, 161)
figure = landscape_figure(
    "A cliff: one step from its edge throws descent away, clipping holds it",
    Ground(
        w,
        b,
        loss_grid(problem, w, b),
        names=("weight w", "bias b"),
        lines={"edge b = ½ - σ(½) w": np.stack([weights, [cliff_edge(x) for x in weights]], 1)},
    ),
    {
        "η = 3": Walk(thrown.points, thrown.losses),
        "η = 3, norm clipped to 0.1": Walk(held.points, held.losses),
    },
)
figure.savefig("cliffs.png", dpi=110)
