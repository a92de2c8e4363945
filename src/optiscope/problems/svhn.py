"""DeepOBS's problems on SVHN, house numbers of 32×32 colour pixels: no flips."""

from __future__ import annotations

from functools import partial

from optiscope.data.augment import colour_jitter, compose, pad_and_crop
from optiscope.problems.image_splits import image_splits
from optiscope.problems.losses import ACCURACY, cross_entropy
from optiscope.problems.models.convolutional import three_conv_three_dense
from optiscope.problems.models.input_layers import on_standardised
from optiscope.problems.models.residual import wide_residual_network
from optiscope.problems.problem import Problem, l2_on_weights
from optiscope.problems.published import baselines_of

__all__ = ["svhn_3c3d", "svhn_wrn164"]

MEAN = (0.4376821, 0.4437697, 0.47280442)
STD = (0.19803012, 0.20101562, 0.19703614)

NOTES = (
    "26,032 of the 73,257 training images validate, in one fixed split. Evaluation without "
    "augmentation, on whole sets, and without the L2 term in the loss."
)

_standardised = partial(on_standardised, mean=MEAN, std=STD)

_svhn = partial(
    Problem,
    loss=cross_entropy,
    data=image_splits(
        "svhn",
        valid=26_032,
        augment=compose(
            pad_and_crop(2),
            colour_jitter(brightness=63 / 255, saturation=(0.5, 1.5), contrast=(0.2, 1.8)),
        ),
    ),
    batch_size=128,
    metric=ACCURACY,
    dataset="svhn",
    source="DeepOBS (Schneider, Balles, Hennig 2019; PyTorch beta, Bahde 2019)",
    licence="non-commercial use only (Netzer et al. 2011)",
)

svhn_3c3d = _svhn(
    name="svhn_3c3d",
    make_model=_standardised(partial(three_conv_three_dense, 10)),
    param_groups=l2_on_weights(0.002),
    epochs=100,
    parameters=895_210,
    notes=NOTES,
)

svhn_wrn164 = _svhn(
    name="svhn_wrn164",
    make_model=_standardised(partial(wide_residual_network, 16, 4, 10)),
    param_groups=l2_on_weights(5e-4),
    epochs=160,
    parameters=2_748_890,
    baselines=baselines_of("svhn_wrn164"),
    notes=f"{NOTES} Batch norm keeps 0.9 of its running statistics at each step, as in "
    "TensorFlow (the PyTorch version kept 0.1 by mistake).",
)
