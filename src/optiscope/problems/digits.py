"""Problems on the UCI digits, 1,797 images of 8×8 pixels that come with scikit-learn.

They train in seconds and need no download.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from optiscope.data import load_digits
from optiscope.data.samples import Splits, TensorSamples
from optiscope.data.splits import fixed_split
from optiscope.problems.image_splits import SPLIT_SEED, reconstruct, split_indices
from optiscope.problems.losses import ACCURACY, cross_entropy, squared_error
from optiscope.problems.models.convolutional import small_convolutional
from optiscope.problems.models.dense import (
    autoencoder,
    logistic_regression,
    multilayer_perceptron,
)
from optiscope.problems.models.initialise import he_normal
from optiscope.problems.models.recurrent import RowReader
from optiscope.problems.models.residual import residual_network
from optiscope.problems.models.transformer import VisionTransformer
from optiscope.problems.parameter_groups import per_layer_groups
from optiscope.problems.problem import Problem

__all__ = [
    "digits_attention",
    "digits_autoencoder",
    "digits_conv",
    "digits_conv_groups",
    "digits_logreg",
    "digits_mlp",
    "digits_resnet",
    "digits_rnn",
    "digits_splits",
]

LICENCE = "CC BY 4.0 (UCI Machine Learning Repository, Alpaydin & Kaynak 1998)"
SOURCE = "this package"


def digits_splits(data_dir: Any) -> Splits:
    """1,197 training, 300 validation and 300 test images; 300 of the training images evaluate."""
    digits = load_digits()
    learnt, test = fixed_split(len(digits.labels), (1497, 300), seed=SPLIT_SEED)
    held_out, evaluated, trained = split_indices(len(learnt), valid=300)
    samples = TensorSamples(digits.images.to(torch.float32) / 16.0, digits.labels)
    return Splits(
        train=samples.subset(learnt[trained]),
        train_eval=samples.subset(learnt[evaluated]),
        valid=samples.subset(learnt[held_out]),
        test=samples.subset(test),
    )


_digits = partial(
    Problem,
    loss=cross_entropy,
    data=digits_splits,
    batch_size=32,
    epochs=10,
    metric=ACCURACY,
    dataset="digits",
    source=SOURCE,
    licence=LICENCE,
)

digits_logreg = _digits(
    name="digits_logreg",
    make_model=partial(logistic_regression, 64, 10),
    parameters=650,
    first_loss=2.302585092994046,  # ln 10: all classes equally probable
)

digits_mlp = _digits(
    name="digits_mlp",
    make_model=partial(multilayer_perceptron, (64, 100, 50, 10), he_normal),
    parameters=12_060,
)

digits_conv = _digits(
    name="digits_conv",
    make_model=small_convolutional,
    parameters=13_706,
)

digits_conv_groups = replace(
    digits_conv,
    name="digits_conv_groups",
    param_groups=per_layer_groups,
    notes="digits_conv with parameter groups: L2 and a factor on the rate for each kind of layer.",
)

digits_resnet = _digits(
    name="digits_resnet",
    make_model=partial(residual_network, 1, channels=1, width=8, pixels=8, stages=2),
    parameters=4_962,
)

digits_rnn = _digits(
    name="digits_rnn",
    make_model=RowReader,
    parameters=5_322,
    notes="The image is a sequence of eight rows.",
)

digits_attention = _digits(
    name="digits_attention",
    make_model=partial(
        VisionTransformer, pixels=8, patch=2, channels=1, width=32, heads=4, blocks=2, std=0.1
    ),
    parameters=26_474,
)

digits_autoencoder = _digits(
    name="digits_autoencoder",
    make_model=autoencoder,
    loss=squared_error,
    data=reconstruct(digits_splits),
    metric=None,
    parameters=4_744,
)
