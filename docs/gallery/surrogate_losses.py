"""Surrogate losses: train one loss, stop on the one you care about.

Errors cannot be minimized by gradients, so a classifier minimizes cross-entropy. The surrogate
goes on falling long after the last training error is gone, and that is useful for a while:
margins grow. Then the validation loss turns, while accuracy hardly moves. Early stopping looks at
the true loss, on data that are not trained on.
"""

import numpy as np
from matplotlib.figure import Figure

import optiscope
from optiscope.report.figure_style import figure_style

settings = {"hyperparameters": {"lr": 3e-3}, "epochs": 40, "seed": 1}
whole = optiscope.run("digits_mlp", "adam", **settings)
stopped = optiscope.run(
    "digits_mlp",
    "adam",
    early_stopping={"metric": "valid_accuracy", "patience": 8},
    **settings,
)


def curve(run, split, name):
    """Epochs and values as arrays."""
    epochs, values = run.curve(split, name)
    return np.array(epochs), np.array(values)


# %%
# ## What the two losses say
#
# The training error reaches zero early; the surrogate falls on by orders of magnitude.

epochs, surrogate = curve(whole, "train", "loss")
_, accuracy = curve(whole, "train", "accuracy")
perfect = int(np.argmax(accuracy == 1.0))
assert accuracy[perfect] == 1.0
assert surrogate[-1] < 0.1 * surrogate[perfect]

_, valid_loss = curve(whole, "valid", "loss")
_, valid_accuracy = curve(whole, "valid", "accuracy")
assert valid_loss[-1] > valid_loss.min()
assert stopped.status == "stopped"
stop = curve(stopped, "valid", "accuracy")[0][-1]
assert stop < 40
assert max(curve(stopped, "valid", "accuracy")[1]) > valid_accuracy.max() - 0.01

with figure_style():
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, surrogate, color="#0072b2", label="training")
    left.plot(epochs, valid_loss, color="#d55e00", label="validation")
    left.set(yscale="log", title="surrogate: cross-entropy", xlabel="epoch")
    right.plot(epochs, 100 * (1 - accuracy), color="#0072b2", label="training")
    right.plot(epochs, 100 * (1 - valid_accuracy), color="#d55e00", label="validation")
    right.set(title="true loss: errors in percent", xlabel="epoch", ylim=(-0.5, 15))
    for axes in (left, right):
        axes.axvline(stop, color="#1a1a1a", linestyle=":", label="early stopping")
    left.legend()
    figure.suptitle(
        "The surrogate falls on after the last training error is gone", x=0.01, ha="left",
        fontsize=11, fontweight="bold",
    )  # fmt: skip
figure.savefig("surrogate_losses.png", dpi=110)
