"""Residual networks: wide ones with pre-activation, and the thin ones of 2016 for CIFAR.

Index legend: B images of C channels with H × W pixels, K classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from optiscope.problems.models.initialise import he_normal, initialise
from optiscope.problems.models.same_padding import SameConv2d

__all__ = ["ResidualUnit", "WideUnit", "residual_network", "wide_residual_network"]


class WideUnit(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv beside a shortcut (pre-activation, Zagoruyko & Komodakis 2016).

    Where the width changes, the shortcut is a 1×1 convolution of the normalised activation.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first_norm = nn.BatchNorm2d(inputs)
        self.first = SameConv2d(inputs, outputs, 3, stride, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.second = SameConv2d(outputs, outputs, 3, bias=False)
        self.shortcut = (
            SameConv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> [B, C', H / stride, W / stride]."""
        active = F.relu(self.first_norm(images))
        beside = images if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.second(F.relu(self.second_norm(self.first(active)))) + beside
        return out


def wide_residual_network(depth: int, widening: int, classes: int) -> nn.Module:
    """WRN-depth-widening on 32×32 images, with (depth - 4) / 6 units in each of three groups.

    Args:
        depth: convolutions on the main path, 6n + 4.
        widening: factor on the widths 16, 32, 64.
        classes: number of logits.
    """
    units = (depth - 4) // 6
    layers: list[nn.Module] = [SameConv2d(3, 16, 3, bias=False)]
    channels = 16
    for group in range(3):
        width = 16 * widening * 2**group
        for unit in range(units):
            stride = 2 if group > 0 and unit == 0 else 1
            layers.append(WideUnit(channels, width, stride))
            channels = width
    model = nn.Sequential(
        *layers,
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AvgPool2d(8),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )
    initialise(model, linear=nn.init.xavier_uniform_)
    return model


class ResidualUnit(nn.Module):
    """conv-BN-ReLU-conv-BN beside a shortcut without parameters, then ReLU (He et al. 2016).

    Where the width doubles, the shortcut takes every second pixel and appends channels of zeros
    (their option A).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.added_channels = outputs - inputs
        self.first = nn.Conv2d(inputs, outputs, 3, self.stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> [B, C', H / stride, W / stride]."""
        out = self.second_norm(self.second(F.relu(self.first_norm(self.first(images)))))
        beside = images[..., :: self.stride, :: self.stride]
        if self.added_channels:
            beside = F.pad(beside, (0, 0, 0, 0, 0, self.added_channels))
        return F.relu(out + beside)


def residual_network(
    units: int,
    classes: int = 10,
    *,
    channels: int = 3,
    width: int = 16,
    pixels: int = 32,
    stages: int = 3,
) -> nn.Module:
    """ResNet of ``2 · units · stages + 2`` layers for small images; 9 units make ResNet-56.

    Args:
        units: residual units in each stage.
        classes: number of logits.
        channels: channels of the images.
        width: channels of the first stage; each further stage doubles them and halves the pixels.
        pixels: side of the images.
        stages: number of stages.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    inputs = width
    for stage in range(stages):
        for _ in range(units):
            layers.append(ResidualUnit(inputs, width * 2**stage))
            inputs = width * 2**stage
    model = nn.Sequential(
        *layers,
        nn.AvgPool2d(pixels // 2 ** (stages - 1)),
        nn.Flatten(),
        nn.Linear(inputs, classes),
    )
    initialise(model, linear=he_normal)
    return model
