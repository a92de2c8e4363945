"""DeepOBS's problems on MNIST and Fashion-MNIST: 28×28 grey images, pixels between 0 and 1."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from optiscope.problems.image_splits import image_splits, reconstruct
from optiscope.problems.losses import ACCURACY, cross_entropy
from optiscope.problems.models.convolutional import two_conv_two_dense
from optiscope.problems.models.dense import logistic_regression, multilayer_perceptron
from optiscope.problems.models.initialise import truncated_normal
from optiscope.problems.models.variational_autoencoder import (
    VariationalAutoencoder,
    negative_elbo,
)
from optiscope.problems.problem import Problem
from optiscope.problems.published import baselines_of

__all__ = [
    "fmnist_2c2d",
    "fmnist_2c2d_10k",
    "fmnist_logreg",
    "fmnist_mlp",
    "fmnist_vae",
    "mnist_2c2d",
    "mnist_logreg",
    "mnist_mlp",
    "mnist_vae",
]

SOURCE = "DeepOBS (Schneider, Balles, Hennig 2019; PyTorch beta, Bahde 2019)"
NOTES = (
    "One fixed split of the official training set; the training-evaluation images are not among "
    "the validation images; evaluation sets are used whole (the original left out the last 16)."
)

_mnist = partial(
    Problem,
    loss=cross_entropy,
    data=image_splits("mnist", valid=10_000),
    batch_size=128,
    metric=ACCURACY,
    dataset="mnist",
    source=SOURCE,
    licence="CC BY-SA 3.0 (LeCun, Cortes, Burges 1998)",
    notes=NOTES,
)

_as_fashion = partial(
    replace,
    data=image_splits("fashion_mnist", valid=10_000),
    dataset="fashion_mnist",
    licence="MIT (Xiao, Rasul, Vollgraf 2017)",
)

mnist_logreg = _mnist(
    name="mnist_logreg",
    make_model=partial(logistic_regression, 784, 10),
    epochs=50,
    parameters=7_850,
    first_loss=2.302585092994046,  # ln 10: all classes equally probable
    baselines=baselines_of("mnist_logreg"),
)

mnist_mlp = _mnist(
    name="mnist_mlp",
    make_model=partial(multilayer_perceptron, (784, 1000, 500, 100, 10), truncated_normal(0.03)),
    epochs=100,
    parameters=1_336_610,
)

mnist_2c2d = _mnist(
    name="mnist_2c2d",
    make_model=two_conv_two_dense,
    epochs=100,
    parameters=3_274_634,
)

fmnist_logreg = _as_fashion(mnist_logreg, name="fmnist_logreg", baselines=())
fmnist_mlp = _as_fashion(mnist_mlp, name="fmnist_mlp")
fmnist_2c2d = _as_fashion(mnist_2c2d, name="fmnist_2c2d", baselines=baselines_of("fmnist_2c2d"))

fmnist_2c2d_10k = replace(
    fmnist_2c2d,
    name="fmnist_2c2d_10k",
    data=image_splits("fashion_mnist", valid=10_000, train=10_000),
    epochs=20,
    source=f"{SOURCE}, on fewer images",
    baselines=(),
    notes=f"{NOTES} Trained on a fixed 10,000 of the 50,000 training images.",
)

mnist_vae = replace(
    mnist_mlp,
    name="mnist_vae",
    make_model=VariationalAutoencoder,
    loss=negative_elbo,
    data=reconstruct(mnist_mlp.data),
    batch_size=64,
    epochs=50,
    metric=None,
    parameters=10_151_489,
    baselines=baselines_of("mnist_vae"),
    notes=f"{NOTES} Dropout after all three transposed convolutions, as in PyTorch (TensorFlow, "
    "whose results are the published ones, has none after the third). In evaluation the code's "
    "noise is a fixed function of the image.",
)

fmnist_vae = replace(
    mnist_vae,
    name="fmnist_vae",
    data=reconstruct(fmnist_mlp.data),
    dataset=fmnist_mlp.dataset,
    licence=fmnist_mlp.licence,
    epochs=100,
    baselines=baselines_of("fmnist_vae"),
)
