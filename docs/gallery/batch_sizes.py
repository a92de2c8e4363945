"""Batch, online, minibatch: the gradient's error falls by √B, its cost grows by B.

The gradient of B samples drawn without replacement from n differs from that of all of them by

    E ‖g_B - g‖² = (tr Σ / B) (n - B) / (n - 1),

with Σ the covariance of per-sample gradients. Four times the samples halve the error. A step with
one sample costs almost as much time as a step with a few dozen. So batches of one are rare.
"""

import time

import numpy as np
import torch
from matplotlib.figure import Figure

from optiscope import EmpiricalRisk
from optiscope.problems import get
from optiscope.report.figure_style import figure_style

problem = get("digits_logreg")
n = 256
batch = problem.data(None).train.select(torch.arange(n))
inputs, targets = batch.inputs.double(), batch.targets
torch.manual_seed(0)
model = problem.make_model().double()
risk = EmpiricalRisk(model, torch.nn.CrossEntropyLoss(), [(inputs, targets)])
gradients = risk.per_sample_gradients()
whole = gradients.mean(0)
assert torch.allclose(whole, risk.gradient(), rtol=1e-9)
variance = float((gradients - whole).square().sum(1).sum()) / (n - 1)

# %%
# ## The error, measured and predicted

generator = torch.Generator().manual_seed(0)
sizes = np.array([1, 2, 4, 8, 16, 32, 64, 128])
errors = []
for size in sizes:
    drawn = [gradients[torch.randperm(n, generator=generator)[:size]].mean(0) for _ in range(400)]
    errors.append(float(torch.stack([(g - whole).square().sum() for g in drawn]).mean().sqrt()))
predicted = np.sqrt(variance / sizes * (n - sizes) / n)
assert np.allclose(errors, predicted, rtol=0.1)

# %%
# ## The cost of a step
#
# Seconds of a forward and a backward pass on one thread; the median of thirty.

network = get("digits_mlp").make_model()
images = batch.inputs.float()
seconds = []
for size in [*sizes, n]:
    times = []
    for _ in range(30):
        begun = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(network(images[:size]), targets[:size])
        torch.autograd.grad(loss, list(network.parameters()))
        times.append(time.perf_counter() - begun)
    seconds.append(float(np.median(times)))
assert seconds[-1] < 100 * seconds[0]  # 256 times the samples

with figure_style():
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    norm = float(whole.norm())
    left.loglog(sizes, np.array(errors) / norm, "o", color="#0072b2", label="measured, 400 draws")
    left.loglog(sizes, predicted / norm, "--", color="#1a1a1a", label="predicted")
    left.set(xlabel="batch size B", ylabel="error / norm of the gradient")
    left.set_title("error of the gradient")
    left.legend()
    every = np.array([*sizes, n])
    right.loglog(every, 1e3 * np.array(seconds), "o-", color="#d55e00", label="measured")
    right.loglog(every, 1e3 * seconds[0] * every, "--", color="#1a1a1a", label="proportional to B")
    right.set(xlabel="batch size B", ylabel="milliseconds a step", ylim=(None, 60e3 * seconds[0]))
    right.set_title("cost of a step")
    right.legend()
    figure.suptitle(
        "Four times the samples halve the error", x=0.01, ha="left", fontsize=11, fontweight="bold"
    )
figure.savefig("batch_sizes.png", dpi=110)
