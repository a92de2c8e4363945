"""Plain stacks of convolutions, pooling and linear layers.

Index legend: B images of C channels with H × W pixels, K classes.
"""

from __future__ import annotations

from torch import nn

from optiscope.problems.models.initialise import he_normal, initialise, truncated_normal
from optiscope.problems.models.same_padding import SameConv2d, SameMaxPool2d

__all__ = [
    "alexnet_like",
    "all_convolutional_c",
    "small_convolutional",
    "three_conv_three_dense",
    "two_conv_two_dense",
]


def two_conv_two_dense(channels: int = 1, pixels: int = 28, classes: int = 10) -> nn.Module:
    """2c2d: two 5×5 convolutions, each pooled by 2, and two linear layers."""
    model = nn.Sequential(
        SameConv2d(channels, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        SameConv2d(32, 64, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (pixels // 4) ** 2, 1024),
        nn.ReLU(),
        nn.Linear(1024, classes),
    )
    initialise(model, linear=truncated_normal(0.05), bias=0.05)
    return model


def three_conv_three_dense(classes: int, glorot: bool = True) -> nn.Module:
    """3c3d on 32×32 colour images: three convolutions, each pooled 3/2, three linear layers.

    Args:
        classes: number of logits.
        glorot: Glorot-normal kernels, Glorot-uniform linear weights, biases 0; else weights and
            biases as PyTorch draws them, uniform within ±1/sqrt(fan-in).
    """
    model = nn.Sequential(
        nn.Conv2d(3, 64, 5),
        nn.ReLU(),
        SameMaxPool2d(3, 2),
        nn.Conv2d(64, 96, 3),
        nn.ReLU(),
        SameMaxPool2d(3, 2),
        SameConv2d(96, 128, 3),
        nn.ReLU(),
        SameMaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(1152, 512),
        nn.ReLU(),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )
    if glorot:
        initialise(model, conv=nn.init.xavier_normal_, linear=nn.init.xavier_uniform_)
    return model


def all_convolutional_c(classes: int) -> nn.Module:
    """All-CNN-C: nine convolutions, two of them strided, averaged over 6×6 positions."""

    def block(*layers: nn.Module) -> list[nn.Module]:
        return [module for layer in layers for module in (layer, nn.ReLU())]

    model = nn.Sequential(
        nn.Dropout(0.2),
        *block(SameConv2d(3, 96, 3), SameConv2d(96, 96, 3), SameConv2d(96, 96, 3, stride=2)),
        nn.Dropout(0.5),
        *block(SameConv2d(96, 192, 3), SameConv2d(192, 192, 3), SameConv2d(192, 192, 3, stride=2)),
        nn.Dropout(0.5),
        *block(nn.Conv2d(192, 192, 3), nn.Conv2d(192, 192, 1), nn.Conv2d(192, classes, 1)),
        nn.AvgPool2d(6),
        nn.Flatten(),
    )
    initialise(model, linear=nn.init.xavier_normal_, bias=0.1)
    return model


def alexnet_like(classes: int) -> nn.Module:
    """Two 5×5 convolutions, each pooled 3/2, and three linear layers, with nothing else.

    The small AlexNet of Zhang et al. 2017 for CIFAR-10 on whole images of 32×32 pixels, bare of
    local response normalisation. Glorot weights, biases 0.
    """
    model = nn.Sequential(
        SameConv2d(3, 64, 5),
        nn.ReLU(),
        SameMaxPool2d(3, 2),
        SameConv2d(64, 64, 5),
        nn.ReLU(),
        SameMaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 384),
        nn.ReLU(),
        nn.Linear(384, 192),
        nn.ReLU(),
        nn.Linear(192, classes),
    )
    initialise(model, conv=nn.init.xavier_normal_, linear=nn.init.xavier_uniform_)
    return model


def small_convolutional(channels: int = 1, pixels: int = 8, classes: int = 10) -> nn.Module:
    """Two 3×3 convolutions, each pooled by 2, and two linear layers; He weights, biases 0."""
    model = nn.Sequential(
        SameConv2d(channels, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        SameConv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (pixels // 4) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )
    initialise(model, linear=he_normal)
    return model
