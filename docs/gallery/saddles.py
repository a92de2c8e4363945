"""A saddle holds first-order methods up; Newton's method goes into it.

Near a saddle the gradient vanishes and the way out is flat. Gradient descent with rate η
multiplies its distance from the ridge by 1 + ηc a step, where -c is the negative curvature.
Newton's method jumps to the nearest point without a gradient, which is the saddle. With the
absolute values of the eigenvalues (Dauphin et al. 2014) it leaves, however small c is.
"""

from functools import partial

import numpy as np
from torch.optim import SGD, Adam

from optiscope.optim.baselines.saddle_free_newton import SaddleFreeNewton
from optiscope.problems import get
from optiscope.problems.textbook.loss_grid import loss_grid
from optiscope.problems.textbook.saddle import MINIMA, escape_steps
from optiscope.problems.textbook.trajectory import trajectory
from optiscope.report.figures.textbook import Ground, Walk, landscape_figure

problem = get("textbook_saddle")
newton = partial(SaddleFreeNewton, absolute=False)
paths = {
    "gradient descent, η = 1": trajectory(problem, partial(SGD, lr=1.0), 150),
    "momentum 0.9, η = 0.5": trajectory(problem, partial(SGD, lr=0.5, momentum=0.9), 150),
    "Adam, η = 0.03": trajectory(problem, partial(Adam, lr=0.03), 150),
    "Newton": trajectory(problem, newton, 150, closure=True),
    "saddle-free Newton": trajectory(problem, SaddleFreeNewton, 150, closure=True),
}

# %%
# ## How long it takes
#
# The distance from the ridge is q = (u - v) / √2. It grows from 0.001; theory says when it passes
# 0.1.


def steps_until_away(path):
    """First step at which the distance from the ridge exceeds 0.1, or None."""
    q = np.abs(path.points[:, 0] - path.points[:, 1]) / np.sqrt(2)
    away = np.flatnonzero(q > 0.1)
    return int(away[0]) if len(away) else None


assert abs(steps_until_away(paths["gradient descent, η = 1"]) - escape_steps(1.05)) < 3
assert abs(steps_until_away(paths["saddle-free Newton"]) - escape_steps(2.0)) < 2
assert steps_until_away(paths["Newton"]) is None
assert np.abs(paths["Newton"].points[-1]).max() < 1e-6  # at the saddle

axis = np.linspace(-1.3, 1.4, 161)
figure = landscape_figure(
    "A saddle: first-order methods stall, Newton stays, saddle-free Newton leaves",
    Ground(axis, axis, loss_grid(problem, axis, axis), minima=MINIMA, equal=True),
    {label: Walk(path.points, path.losses) for label, path in paths.items()},
    reference=-0.0125,
)
figure.savefig("saddles.png", dpi=110)
