"""Ill-conditioning, and what a preconditioner does to the condition number.

Gradient descent crawls where curvatures differ: its error shrinks by (κ - 1) / (κ + 1) a step at
best, with κ the largest curvature over the smallest. A preconditioner changes the coordinates,
and with them κ.

Here the features of a linear regression have scales from 1 to 10. Dividing by the diagonal of the
Hessian undoes that.
"""

import numpy as np
import torch
from torch import nn

from optiscope import EmpiricalRisk, curvature
from optiscope.report.figures.textbook import Curve, curve_figure

generator = torch.Generator().manual_seed(0)
scales = torch.logspace(0, 1, 8, dtype=torch.float64)
inputs = torch.randn(400, 8, generator=generator, dtype=torch.float64) * scales
targets = inputs @ torch.randn(8, 1, generator=generator, dtype=torch.float64)
model = nn.Linear(8, 1, bias=False).double()
risk = EmpiricalRisk(model, nn.MSELoss(), [(inputs, targets)])

# %%
# ## Measure it
#
# `condition_number` finds both ends of the spectrum of A, and of P⁻¹A.

diagonal = 2 * inputs.square().mean(0)
result = curvature.condition_number(risk.hessian(), lambda v: v / diagonal, k=4)
assert result.before.converged
assert result.before.number > 80
assert result.after.number < 2

# %%
# ## Descend
#
# The best constant rate is 2 / (λ_max + λ_min), in either coordinates.


def descend(scale, ends, steps):
    """Loss after each step of gradient descent, preconditioned by ``scale``."""
    rate = 2 / (ends.largest + ends.smallest)
    theta, losses = torch.zeros(8, dtype=torch.float64), []
    for _ in range(steps + 1):
        loss, gradient = risk.value_and_gradient(theta)
        losses.append(float(loss))
        theta = theta - rate * scale * gradient
    return np.array(losses)


steps = 120
plain = descend(1.0, result.before, steps)
scaled = descend(1 / diagonal, result.after, 20)
factor = (result.before.number - 1) / (result.before.number + 1)
measured = (plain[-1] / plain[-21]) ** (1 / 40)
assert abs(measured - factor) < 0.01 * factor
assert scaled[20] < 1e-10 * plain[20]

k = np.arange(steps + 1.0)
theory = plain[-1] * factor ** (2 * (k - steps))
figure = curve_figure(
    f"Condition number {result.before.number:.0f}, with the preconditioner "
    f"{result.after.number:.2f}",
    {
        "": [
            Curve("gradient descent", k, plain),
            Curve("divided by the Hessian's diagonal", k[:21], scaled),
            Curve("((κ - 1) / (κ + 1))² a step", k, theory, theory=True),
        ]
    },
    x="step",
    y="loss",
)
figure.savefig("ill_conditioning.png", dpi=110)
