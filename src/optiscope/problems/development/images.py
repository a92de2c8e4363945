"""Development problems on MNIST and Fashion-MNIST."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from optiscope.data.samples import Splits
from optiscope.problems.development.parts import RandomParts
from optiscope.problems.image_splits import image_splits, reconstruct
from optiscope.problems.losses import ACCURACY, cross_entropy, squared_error
from optiscope.problems.models.dense import logistic_regression, multilayer_perceptron
from optiscope.problems.models.initialise import he_normal
from optiscope.problems.models.mixer import MLPMixer
from optiscope.problems.models.residual import residual_network
from optiscope.problems.models.transformer import VisionTransformer
from optiscope.problems.problem import Problem

__all__ = ["dev_autoencoder", "dev_logreg", "dev_mixer", "dev_resnet", "dev_vit"]

POOL, EPOCH = 8_000, 1_024
VALID, TRAIN_EVAL, TEST = 1_000, 200, 400


def _part(data_dir: Any, *, dataset: str, reconstructs: bool) -> Splits:
    """Fixed sets: 8,000 images to train on, 1,000 for validation, 400 of the test set."""
    load = image_splits(dataset, valid=VALID, train=POOL)
    whole = (reconstruct(load) if reconstructs else load)(data_dir)
    return Splits(
        train=RandomParts(whole.train, EPOCH),
        train_eval=whole.train.subset(torch.arange(TRAIN_EVAL)),
        valid=whole.valid,
        test=whole.test.subset(torch.arange(TEST)),
    )


def _data(dataset: str, *, reconstructs: bool = False) -> Any:
    return partial(_part, dataset=dataset, reconstructs=reconstructs)


_fashion = partial(
    Problem,
    loss=cross_entropy,
    data=_data("fashion_mnist"),
    batch_size=32,
    epochs=24,
    metric=ACCURACY,
    dataset="fashion_mnist",
    source="this package, to develop optimizers on",
    licence="MIT (Xiao, Rasul, Vollgraf 2017)",
    notes="An epoch is 1,024 images, a fresh random part of 8,000: 24 epochs are three passes.",
)
_mnist = partial(
    _fashion,
    data=_data("mnist"),
    dataset="mnist",
    licence="CC BY-SA 3.0 (LeCun, Cortes, Burges 1998)",
)

dev_logreg = _fashion(
    name="dev_logreg",
    make_model=partial(logistic_regression, 784, 10),
    parameters=7_850,
    first_loss=2.302585092994046,  # ln 10: all classes equally probable
)


def _halved_residual_network() -> nn.Module:
    """A residual network of 6 layers with batch norm, on 14×14 pixels (means of four)."""
    network = residual_network(1, channels=1, width=12, pixels=14, stages=2)
    return nn.Sequential(nn.AvgPool2d(2), network)


dev_resnet = _fashion(name="dev_resnet", make_model=_halved_residual_network, parameters=10_894)

dev_mixer = _fashion(
    name="dev_mixer",
    make_model=partial(
        MLPMixer, pixels=28, patch=7, channels=1, width=64, across=32, hidden=128, blocks=2
    ),
    parameters=39_786,
    first_loss=2.302585092994046,  # the last layer starts at zero
)

dev_vit = _mnist(
    name="dev_vit",
    make_model=partial(
        VisionTransformer, pixels=28, patch=7, channels=1, width=48, heads=4, blocks=2
    ),
    parameters=60_298,
)

dev_autoencoder = _mnist(
    name="dev_autoencoder",
    make_model=lambda: nn.Sequential(
        multilayer_perceptron((784, 200, 64, 16, 64, 200, 784), he_normal),
        nn.Unflatten(1, (1, 28, 28)),
    ),
    loss=squared_error,
    data=_data("mnist", reconstructs=True),
    metric=None,
    parameters=342_576,
)
