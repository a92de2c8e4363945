"""VGG-16 and VGG-19 without batch normalisation (Simonyan & Zisserman 2015, columns D and E).

Index legend: B images of H × W pixels, K classes.
"""

from __future__ import annotations

from torch import nn

from optiscope.problems.models.initialise import initialise

__all__ = ["BLOCKS", "vgg"]

BLOCKS: dict[int, tuple[tuple[int, int], ...]] = {
    16: ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
    19: ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)),
}
"""Channels and number of convolutions of each block, by number of weight layers."""


def vgg(depth: int, classes: int) -> nn.Module:
    """Images [B, 3, 224, 224] through five blocks of 3×3 convolutions and three linear layers.

    Each block ends with pooling by 2.

    Args:
        depth: 16 or 19 weight layers.
        classes: number of logits.
    """
    layers: list[nn.Module] = []
    channels = 3
    for width, convolutions in BLOCKS[depth]:
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    model = nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, classes),
    )
    initialise(model, conv=nn.init.xavier_normal_, linear=nn.init.xavier_uniform_)
    return model
