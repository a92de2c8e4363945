"""Initialization: signals must neither vanish nor explode on their way.

Before training, look at the spread of each layer's outputs going forward, and of gradients going
back. In a deep ReLU network weights of variance 2 / inputs (He et al. 2015) keep both level;
smaller ones shrink them by a constant factor a layer.
"""

import math

import torch

from optiscope.problems import get
from optiscope.problems.initialisation import initialise
from optiscope.problems.losses import cross_entropy
from optiscope.problems.models.dense import multilayer_perceptron
from optiscope.problems.signal_spread import signal_spread
from optiscope.report.figures.signal_propagation import Spread, spread_figure

batch = get("digits_mlp").data(None).train.select(torch.arange(256))
rules = {
    "uniform, 1 / √inputs": {"name": "uniform"},
    "Glorot": {"name": "glorot_uniform"},
    "He": {"name": "he_normal"},
    "orthogonal, gain √2": {"name": "orthogonal", "gain": math.sqrt(2)},
}
spreads = {}
for label, rule in rules.items():
    model = multilayer_perceptron((64, *[200] * 9, 10), torch.nn.init.zeros_)
    initialise(model, rule, generator=torch.Generator().manual_seed(0))
    rows = [row for row in signal_spread(model, cross_entropy, batch) if row.kind == "Linear"]
    spreads[label] = Spread(
        [f"layer {i}" for i in range(1, len(rows) + 1)],
        [row.std for row in rows],
        [row.gradient or math.nan for row in rows],
    )


# %%
# ## What the rules do over eight layers


def change(label):
    """Spread of outputs of layer 9 over that of layer 1."""
    return spreads[label].activations[8] / spreads[label].activations[0]


assert 0.3 < change("He") < 3
assert 0.3 < change("orthogonal, gain √2") < 3
assert change("Glorot") < 0.2  # 2^(-8/2) = 0.06 in theory
assert change("uniform, 1 / √inputs") < 0.01  # 6^(-8/2) = 0.0008

figure = spread_figure("Ten linear layers of 200 units with ReLU, before training", spreads)
figure.savefig("initialization.png", dpi=110)
