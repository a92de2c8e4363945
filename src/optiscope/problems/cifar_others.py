"""Networks on CIFAR-10 from other sources than DeepOBS."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from optiscope.data.augment import compose, horizontal_flip, pad_and_crop
from optiscope.problems.cifar import LICENCE, cifar10_3c3d, on_cifar10
from optiscope.problems.image_splits import image_splits
from optiscope.problems.losses import ACCURACY, cross_entropy
from optiscope.problems.models.convolutional import alexnet_like, three_conv_three_dense
from optiscope.problems.models.residual import residual_network
from optiscope.problems.models.transformer import VisionTransformer
from optiscope.problems.parameter_groups import per_layer_groups
from optiscope.problems.problem import Problem, l2_on_weights

__all__ = [
    "cifar10_3c3d_groups",
    "cifar10_alexnet",
    "cifar10_resnet20",
    "cifar10_resnet56",
    "cifar10_roos_glorot",
    "cifar10_roos_uniform",
    "cifar10_vit",
    "cifar10_vit_patch8",
]

SHIFT_AND_FLIP = compose(pad_and_crop(4), horizontal_flip())
PLAIN = image_splits("cifar10", valid=10_000)
SHIFTED = image_splits("cifar10", valid=10_000, augment=SHIFT_AND_FLIP)

_cifar10 = partial(
    Problem,
    loss=cross_entropy,
    batch_size=128,
    metric=ACCURACY,
    dataset="cifar10",
    licence=LICENCE,
)

cifar10_resnet56 = _cifar10(
    name="cifar10_resnet56",
    make_model=on_cifar10(partial(residual_network, 9)),
    data=SHIFTED,
    param_groups=l2_on_weights(1e-4),
    epochs=180,
    parameters=853_018,
    source="He, Zhang, Ren, Sun 2016, section 4.2, shortcuts without parameters",
    notes="Padding by 4 and random crop, random flip. The source trains 64,000 steps on 45,000 "
    "images, which are 182 epochs; here 40,000 images train and 10,000 validate. Before the first "
    "step batch norm's running statistics are not yet those of the data, so that the first "
    "evaluation's loss is of the order of 10,000.",
)

cifar10_resnet20 = replace(
    cifar10_resnet56,
    name="cifar10_resnet20",
    make_model=on_cifar10(partial(residual_network, 3)),
    parameters=269_722,
    notes="The smallest network of the source's table 6, which has 91.25 % test accuracy there. "
    f"{cifar10_resnet56.notes}",
)

cifar10_alexnet = _cifar10(
    name="cifar10_alexnet",
    make_model=on_cifar10(partial(alexnet_like, 10)),
    data=PLAIN,
    epochs=100,
    parameters=1_756_426,
    source="the small AlexNet of Zhang et al. 2017, bare",
    notes="Bare: no local response normalisation, no dropout, no L2, no augmentation; on whole "
    "images of 32×32 pixels (the source crops them to 28×28).",
)

_vision_transformer = partial(
    VisionTransformer, pixels=32, channels=3, width=192, heads=4, blocks=6, dropout=0.1
)

cifar10_vit = _cifar10(
    name="cifar10_vit",
    make_model=on_cifar10(partial(_vision_transformer, patch=4)),
    data=SHIFTED,
    epochs=100,
    parameters=2_693_194,
    source="Dosovitskiy et al. 2021, small, with the mean over tokens of Beyer et al. 2022",
    notes="64 patches of 4×4 pixels, six blocks of width 192 with four heads, dropout 0.1.",
)

cifar10_vit_patch8 = replace(
    cifar10_vit,
    name="cifar10_vit_patch8",
    make_model=on_cifar10(partial(_vision_transformer, patch=8)),
    parameters=2_711_626,
    notes="As cifar10_vit with 16 patches of 8×8 pixels, a quarter of the tokens.",
)

cifar10_3c3d_groups = replace(
    cifar10_3c3d,
    name="cifar10_3c3d_groups",
    param_groups=per_layer_groups,
    baselines=(),
    notes=f"{cifar10_3c3d.notes} Parameter groups: L2 and a factor on the rate for each kind of "
    "layer.",
)

cifar10_roos_glorot = _cifar10(
    name="cifar10_roos_glorot",
    make_model=on_cifar10(partial(three_conv_three_dense, 10)),
    data=PLAIN,
    param_groups=l2_on_weights(0.01),
    batch_size=32,
    epochs=250,
    parameters=895_210,
    source="Roos & Hennig 2019, section on CIFAR-10",
    notes="Convolutions 64 (5×5), 96 (3×3), 128 (3×3), each with max-pooling, and linear layers "
    "512, 256, 10. The source states neither padding, pooling size nor augmentation: padding and "
    "pooling are those of 3c3d, and there is no augmentation.",
)

cifar10_roos_uniform = replace(
    cifar10_roos_glorot,
    name="cifar10_roos_uniform",
    make_model=on_cifar10(partial(three_conv_three_dense, 10, glorot=False)),
    notes=f"{cifar10_roos_glorot.notes} Weights and biases uniform within ±1/sqrt(fan-in).",
)
