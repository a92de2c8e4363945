"""A landscape: two solutions, the hill between them, and the way around it.

Two networks trained from different seeds lie in different places, and on the straight line
between them the loss is high. A path that bends has almost no barrier (Draxler et al. 2018,
Garipov et al. 2018). `landscape.connect` finds one; the plane through both ends and the middle of
the path shows the valley.
"""

import numpy as np
import torch
from torch import nn

from optiscope import EmpiricalRisk, landscape
from optiscope.problems import get
from optiscope.report.figures.landscape import PlaneData, contour_figure

batch = get("digits_mlp").data(None).train.select(torch.arange(400))
inputs, targets = batch.inputs.flatten(1), batch.targets
loss = nn.CrossEntropyLoss()


def trained(seed):
    """A network 64-24-10 after full-batch training; its state dict."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.02, weight_decay=1e-4)
    for _ in range(300):
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()
    return model


model, first = trained(0), trained(0).state_dict()
second = trained(1).state_dict()
risk = EmpiricalRisk(model, loss, [(inputs, targets)])
path = landscape.connect(risk, first, second, gradients=300, require_converged=False)
assert path.line_barrier > 0.1
assert path.barrier < 0.1 * path.line_barrier

# %%
# ## The plane through both ends and the middle of the path

middle = risk.state_dict(path.images[len(path.images) // 2])
directions = landscape.through_solutions(risk, first, second, middle)
plane = landscape.plane(risk, directions, points=31, processes=1)
assert plane.not_finite == 0

data = PlaneData(
    f"Barrier of the straight line {path.line_barrier:.2f}, of the path {path.barrier:.3f}",
    plane.x.numpy(),
    plane.y.numpy(),
    plane.losses.numpy(),
    directions.names,
    dict(zip(("first", "second", "middle of the path"), directions.marks.values(), strict=True)),
    np.empty((0, 2)),
    equal=True,
)
figure = contour_figure(data)
figure.savefig("connected_minima.png", dpi=110)
