"""SGD on a stream minimizes the generalization error itself.

If no sample is ever used twice, the gradient of a sample is an unbiased estimate of the gradient
of the expected loss. Descent then minimizes the generalization error directly, and nothing can
overfit. From the second pass over a fixed training set on, this no longer holds: the training
loss goes on falling, the generalization error does not.
"""

import numpy as np
import torch

from optiscope.report.figures.textbook import Curve, curve_figure

dimension, noise, steps, samples = 50, 1.0, 12_000, 100
generator = torch.Generator().manual_seed(0)
truth = torch.randn(dimension, generator=generator, dtype=torch.float64)


def draw(count):
    """Inputs [count, dimension] and noisy targets [count]."""
    x = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    return x, x @ truth + noise * torch.randn(count, generator=generator, dtype=torch.float64)


fixed = draw(samples)


# %%
# ## Unbiased
#
# The mean of single-sample gradients approaches that of the expected loss, 2 (w - truth).

x, y = draw(200_000)
mean = (2 * (x @ torch.zeros(dimension, dtype=torch.float64) - y)[:, None] * x).mean(0)
assert (mean + 2 * truth).norm() < 0.02 * (2 * truth).norm()


# %%
# ## A stream, and a training set of 100


def descend(next_sample):
    """Expected loss and loss over the fixed samples, every 50 steps."""
    w = torch.zeros(dimension, dtype=torch.float64)
    expected, training = [], []
    for step in range(steps + 1):
        if step % 50 == 0:
            expected.append(float((w - truth).square().sum()) + noise**2)
            training.append(float((fixed[0] @ w - fixed[1]).square().mean()))
        inputs, target = next_sample(step)
        rate = 0.004 / (1 + step / 2000)
        w = w - rate * 2 * (inputs @ w - target) * inputs
    return np.array(expected), np.array(training)


stream = draw(steps + 1)
order = torch.cat(
    [torch.randperm(samples, generator=generator) for _ in range(steps // samples + 1)]
)
fresh, _ = descend(lambda i: (stream[0][i], stream[1][i]))
repeated, training = descend(lambda i: (fixed[0][order[i]], fixed[1][order[i]]))
assert fresh[-1] - noise**2 < 0.5 * (repeated[-1] - noise**2)
assert training[-1] < noise**2 < fresh[-1] < repeated[-1]

k = np.arange(0.0, steps + 1, 50)
figure = curve_figure(
    "Fresh samples: the generalization error itself falls",
    {
        "": [
            Curve("stream: generalization error", k, fresh),
            Curve("100 samples repeated: generalization error", k, repeated),
            Curve("100 samples repeated: training loss", k, training),
            Curve("noise: nothing can be lower", k, np.full(len(k), noise**2), theory=True),
        ]
    },
    x="step (one sample each)",
    y="mean square error",
)
figure.savefig("streams.png", dpi=110)
