"""Problems on CIFAR-10 and CIFAR-100: 32×32 colour images.

Images are stored in [0, 1]; augmentation acts there, and the model's first layer standardises.
"""

from __future__ import annotations

from functools import partial

from optiscope.data.augment import colour_jitter, compose, horizontal_flip, pad_and_crop

from optiscope.problems.image_splits import image_splits
from optiscope.problems.losses import ACCURACY, cross_entropy
from optiscope.problems.models.convolutional import three_conv_three_dense
from optiscope.problems.problem import Problem, l2_on_weights
from optiscope.problems.published import baselines_of

__all__ = ["cifar10_3c3d"]

CIFAR10_MEAN = (0.49139968, 0.48215841, 0.44653091)
CIFAR10_STD = (0.24703223, 0.24348513, 0.26158784)

SOURCE = "DeepOBS (Schneider, Balles, Hennig 2019; PyTorch beta, Bahde 2019)"
LICENCE = "none stated (Krizhevsky 2009); widely used for research"
NOTES = (
    "Padding by 2 and random crop, random flip, then brightness, saturation and contrast act on "
    "images in [0, 1], standardised afterwards (PyTorch version; TensorFlow standardised each "
    "image). Evaluation without augmentation (the original augmented its training-evaluation "
    "images), on whole sets, and without the L2 term in the loss."
)

AUGMENT = compose(
    pad_and_crop(2),
    horizontal_flip(),
    colour_jitter(brightness=63 / 255, saturation=(0.5, 1.5), contrast=(0.2, 1.8)),
)

_cifar10 = partial(
    Problem,
    loss=cross_entropy,
    data=image_splits("cifar10", valid=10_000, augment=AUGMENT),
    batch_size=128,
    metric=ACCURACY,
    dataset="cifar10",
    source=SOURCE,
    licence=LICENCE,
    notes=NOTES,
)

cifar10_3c3d = _cifar10(
    name="cifar10_3c3d",
    make_model=partial(three_conv_three_dense, 10, CIFAR10_MEAN, CIFAR10_STD),
    param_groups=l2_on_weights(0.002),
    epochs=100,
    parameters=895_210,
    baselines=baselines_of("cifar10_3c3d"),
)
