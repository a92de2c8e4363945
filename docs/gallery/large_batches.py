"""Large batches against small: at equal rates, matched losses, sharper places.

Large batches are said to end in sharper minima (Keskar et al. 2017). At one number of epochs a
large batch makes fewer steps, so a fair look matches the training loss. Then the curvature
depends on the rate as well: raise it, and the large batch ends where the small one does. The
largest eigenvalue is measured by `curvature.top_eigenpairs`, on the same samples.
"""

import numpy as np
import torch
from matplotlib.figure import Figure

from optiscope import EmpiricalRisk, curvature
from optiscope.problems import get
from optiscope.report.figure_style import figure_style

problem = get("digits_mlp")
data = problem.data(None).train.select(torch.arange(800))
loss = torch.nn.CrossEntropyLoss()


def sharpness(batch, rate, seed, until=0.1):
    """Largest eigenvalue where the training loss first falls below ``until``."""
    torch.manual_seed(seed)
    model = problem.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    step = 0
    while True:
        for rows in torch.randperm(len(data.targets)).split(batch):
            if step % 20 == 0:
                with torch.no_grad():
                    if loss(model(data.inputs), data.targets) < until:
                        risk = EmpiricalRisk(model, loss, [(data.inputs, data.targets)])
                        return curvature.top_eigenpairs(risk.hessian(), k=1, tol=1e-2).value
            optimizer.zero_grad()
            loss(model(data.inputs[rows]), data.targets[rows]).backward()
            optimizer.step()
            step += 1
            assert step < 6000


rates, seeds = (0.1, 0.2, 0.4), (0, 1, 2)
small = np.array([[sharpness(16, rate, seed) for seed in seeds] for rate in rates])
large = np.array([[sharpness(800, rate, seed) for seed in seeds] for rate in rates])

# %%
# ## What holds, and what does not
#
# At every rate the large batch ends in a sharper place. But the large batch at the highest rate
# is no sharper than the small batch at the lowest: "large batches end in sharper minima" is not
# true without the rate.

assert (large.mean(1) > 1.3 * small.mean(1)).all()
assert large[-1].mean() < small[0].mean()

with figure_style():
    figure = Figure(figsize=(6.2, 3.7), layout="constrained")
    axes = figure.subplots()
    for values, color, label in ((small, "#0072b2", "batch 16"), (large, "#d55e00", "batch 800")):
        axes.plot(rates, values.mean(1), "o-", color=color, label=label)
        axes.plot(rates, values, ".", color=color, alpha=0.4)
    axes.plot(rates, 2 / np.array(rates), "--", color="#1a1a1a", label="2 / rate: unstable above")
    axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="largest eigenvalue")
    axes.minorticks_off()
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_yticks((2, 5, 10, 20), ("2", "5", "10", "20"))
    axes.legend()
    axes.set_title("Sharpness where the training loss is 0.1", loc="left")
figure.savefig("large_batches.png", dpi=110)
