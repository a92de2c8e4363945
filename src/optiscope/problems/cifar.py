"""Problems on CIFAR-10 and CIFAR-100: 32×32 colour images.

Images are stored in [0, 1]; augmentation acts there, and the model's first layer standardises.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from optiscope.data.augment import colour_jitter, compose, horizontal_flip, pad_and_crop
from optiscope.problems.image_splits import image_splits
from optiscope.problems.losses import ACCURACY, cross_entropy
from optiscope.problems.models.convolutional import (
    all_convolutional_c,
    three_conv_three_dense,
)
from optiscope.problems.models.input_layers import on_standardised
from optiscope.problems.models.residual import wide_residual_network
from optiscope.problems.models.vgg import vgg
from optiscope.problems.problem import Problem, l2_on_weights
from optiscope.problems.published import baselines_of

__all__ = [
    "cifar10_3c3d",
    "cifar10_allcnnc",
    "cifar10_vgg16",
    "cifar10_vgg19",
    "cifar10_wrn164",
    "cifar10_wrn404",
    "cifar100_3c3d",
    "cifar100_allcnnc",
    "cifar100_vgg16",
    "cifar100_vgg19",
    "cifar100_wrn164",
    "cifar100_wrn404",
]

JITTER = compose(
    pad_and_crop(2),
    horizontal_flip(),
    colour_jitter(brightness=63 / 255, saturation=(0.5, 1.5), contrast=(0.2, 1.8)),
)

SOURCE = "DeepOBS (Schneider, Balles, Hennig 2019; PyTorch beta, Bahde 2019)"
LICENCE = "none stated; free for research with a citation (Krizhevsky 2009)"
NOTES = (
    "Padding by 2 and random crop, random flip, then brightness, saturation and contrast act on "
    "images in [0, 1], standardised afterwards (PyTorch version; TensorFlow standardised each "
    "image). Evaluation without augmentation (the original augmented its training-evaluation "
    "images), on whole sets, and without the L2 term in the loss."
)
VGG_NOTES = (
    f"{NOTES} L2 on all weights, as in PyTorch and in Simonyan & Zisserman 2015 (TensorFlow: on "
    "convolutions only). The original sets neither batch size nor horizon."
)
WRN_NOTES = (
    f"{NOTES} Batch norm keeps 0.9 of its running statistics at each step, as in TensorFlow (the "
    "PyTorch version kept 0.1 by mistake)."
)


# Mean and standard deviation of each channel over the training images.
on_cifar10 = partial(
    on_standardised,
    mean=(0.49139968, 0.48215841, 0.44653091),
    std=(0.24703223, 0.24348513, 0.26158784),
)
on_cifar100 = partial(
    on_standardised,
    mean=(0.50707516, 0.48654887, 0.44091784),
    std=(0.26733429, 0.25643846, 0.27615047),
)

_cifar10 = partial(
    Problem,
    loss=cross_entropy,
    data=image_splits("cifar10", valid=10_000, augment=JITTER),
    batch_size=128,
    metric=ACCURACY,
    dataset="cifar10",
    source=SOURCE,
    licence=LICENCE,
    notes=NOTES,
)

_as_cifar100 = partial(
    replace,
    data=image_splits("cifar100", valid=10_000, augment=JITTER),
    dataset="cifar100",
    baselines=(),
)

cifar10_3c3d = _cifar10(
    name="cifar10_3c3d",
    make_model=on_cifar10(partial(three_conv_three_dense, 10)),
    param_groups=l2_on_weights(0.002),
    epochs=100,
    parameters=895_210,
    baselines=baselines_of("cifar10_3c3d"),
)

cifar10_vgg16 = _cifar10(
    name="cifar10_vgg16",
    make_model=on_cifar10(partial(vgg, 16, 10), enlarge=224),
    param_groups=l2_on_weights(5e-4),
    epochs=100,
    parameters=134_301_514,
    notes=VGG_NOTES,
)

cifar10_vgg19 = _cifar10(
    name="cifar10_vgg19",
    make_model=on_cifar10(partial(vgg, 19, 10), enlarge=224),
    param_groups=l2_on_weights(5e-4),
    epochs=100,
    parameters=139_611_210,
    notes=VGG_NOTES,
)

cifar10_allcnnc = _cifar10(
    name="cifar10_allcnnc",
    make_model=on_cifar10(partial(all_convolutional_c, 10)),
    param_groups=l2_on_weights(5e-4),
    batch_size=256,
    epochs=350,
    parameters=1_369_738,
    notes=f"{NOTES} The original has this network on CIFAR-100 only.",
)

cifar10_wrn164 = _cifar10(
    name="cifar10_wrn164",
    make_model=on_cifar10(partial(wide_residual_network, 16, 4, 10)),
    param_groups=l2_on_weights(5e-4),
    epochs=160,
    parameters=2_748_890,
    notes=f"{WRN_NOTES} The original has this network on CIFAR-100 and SVHN only.",
)

cifar10_wrn404 = _cifar10(
    name="cifar10_wrn404",
    make_model=on_cifar10(partial(wide_residual_network, 40, 4, 10)),
    param_groups=l2_on_weights(5e-4),
    epochs=160,
    parameters=8_949_210,
    notes=f"{WRN_NOTES} The original has this network on CIFAR-100 only.",
)

cifar100_3c3d = _as_cifar100(
    cifar10_3c3d,
    name="cifar100_3c3d",
    make_model=on_cifar100(partial(three_conv_three_dense, 100)),
    parameters=918_340,
    notes=f"{NOTES} The original sets neither batch size nor horizon.",
)

cifar100_vgg16 = _as_cifar100(
    cifar10_vgg16,
    name="cifar100_vgg16",
    make_model=on_cifar100(partial(vgg, 16, 100), enlarge=224),
    parameters=134_670_244,
)

cifar100_vgg19 = _as_cifar100(
    cifar10_vgg19,
    name="cifar100_vgg19",
    make_model=on_cifar100(partial(vgg, 19, 100), enlarge=224),
    parameters=139_979_940,
)

cifar100_allcnnc = _as_cifar100(
    cifar10_allcnnc,
    name="cifar100_allcnnc",
    make_model=on_cifar100(partial(all_convolutional_c, 100)),
    parameters=1_387_108,
    baselines=baselines_of("cifar100_allcnnc"),
    notes=NOTES,
)

cifar100_wrn164 = _as_cifar100(
    cifar10_wrn164,
    name="cifar100_wrn164",
    make_model=on_cifar100(partial(wide_residual_network, 16, 4, 100)),
    parameters=2_772_020,
    notes=WRN_NOTES,
)

cifar100_wrn404 = _as_cifar100(
    cifar10_wrn404,
    name="cifar100_wrn404",
    make_model=on_cifar100(partial(wide_residual_network, 40, 4, 100)),
    parameters=8_972_340,
    notes=f"{WRN_NOTES} L2 acts (one version of the original returned no groups).",
)
