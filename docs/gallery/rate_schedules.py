"""Rate schedules: O(1/k) for one curvature, O(1/√k) for the worst.

With a constant rate SGD falls quickly and then hovers at a height proportional to the rate. The
best rate of each step falls like 1/k, and the excess loss with it. If the curvature may be
anything, the worst one for k steps is σ/√k, and no schedule does better than ¼ σ/√k. Every curve
is one run on 500 independent parameters; dashed lines are theory.
"""

from functools import partial

import numpy as np
from torch.optim import SGD

from optiscope.problems.textbook.noisy_quadratic import (
    best_rate,
    excess_after,
    excess_of_constant_rate,
    noisy_quadratic,
    worst_curvature,
    worst_excess_after,
)
from optiscope.problems.textbook.trajectory import trajectory
from optiscope.report.figures.textbook import Curve, curve_figure

steps = 800
k = np.arange(1.0, steps + 1)


def excess(rate, lr, curvature):
    """Mean excess loss of a parameter after each step."""
    walked = trajectory(noisy_quadratic(curvature), partial(SGD, lr=lr), steps, rate=rate)
    return 0.5 * curvature * (walked.points**2).mean(1)[1:]


best = excess(best_rate, 1.0, 1.0)
theory = np.array([excess_after(int(i)) for i in k])
assert np.allclose(best[9:], theory[9:], rtol=0.3)
slope = np.polyfit(np.log(k[99:]), np.log(best[99:]), 1)[0]
assert abs(slope + 1) < 0.1  # O(1/k)
one = [Curve("best rate of each step", k, best), Curve("theory", k, theory, theory=True)]
for rate in (0.1, 0.01):
    measured = excess(None, rate, 1.0)
    theory = np.array([excess_of_constant_rate(int(i), rate) for i in k])
    assert np.allclose(measured[99::100], theory[99::100], rtol=0.3)
    one += [Curve(f"η = {rate:g}", k, measured), Curve("theory", k, theory, theory=True)]

# %%
# ## The worst curvature for a given number of steps

worst = []
for horizon in (5, 50, 500):
    h = worst_curvature(horizon)
    measured = excess(partial(best_rate, curvature=h), 1.0, h)
    assert abs(measured[horizon - 1] / worst_excess_after(horizon) - 1) < 0.2  # O(1/√k)
    worst.append(Curve(f"curvature 1/√{horizon}", k, measured))
worst.append(Curve("theory", k, np.array([worst_excess_after(int(i)) for i in k]), theory=True))

figure = curve_figure(
    "O(1/k) for one curvature, O(1/√k) for the worst",
    {"curvature 1": one, "the worst curvature for k = 5, 50, 500": worst},
    x="step k",
    y="excess loss",
    log="xy",
)
figure.savefig("rate_schedules.png", dpi=110)
