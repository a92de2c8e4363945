"""Inception-v3 with its auxiliary head (Szegedy et al. 2016).

Index legend: B images [B, 3, 299, 299], C channels, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from optiscope.problems.losses import cross_entropy
from optiscope.problems.models.initialise import initialise

__all__ = ["InceptionLogits", "InceptionV3", "inception_hits", "inception_loss"]


class InceptionLogits(NamedTuple):
    """Logits [B, K] of the main head, and of the auxiliary head in training (else None)."""

    main: Tensor
    auxiliary: Tensor | None


def inception_loss(outputs: InceptionLogits, targets: Tensor) -> Tensor:
    """Cross-entropy of the main head plus, in training, that of the auxiliary head; [B], nats."""
    loss = cross_entropy(outputs.main, targets)
    if outputs.auxiliary is None:
        return loss
    return loss + cross_entropy(outputs.auxiliary, targets)


def inception_hits(outputs: InceptionLogits, targets: Tensor) -> Tensor:
    """1 where the main head's largest logit is the target, else 0; [B]."""
    return (outputs.main.argmax(-1) == targets).to(outputs.main.dtype)


Kernel = int | tuple[int, int]


def _conv(
    inputs: int, outputs: int, kernel: Kernel, stride: int = 1, same: bool = True
) -> nn.Module:
    """Convolution without bias, batch norm and ReLU; ``same`` keeps the number of pixels."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (sides[0] // 2, sides[1] // 2) if same else (0, 0)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.0003),
        nn.ReLU(),
    )


class Branches(nn.Module):
    """Several layers on the same input, their outputs side by side as channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> [B, sum of the branches' channels, H', W']."""
        return torch.cat([branch(images) for branch in self.branches], dim=1)


def _pooled(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(3, 1, padding=1), _conv(inputs, outputs, 1))


def _block_35(inputs: int, pooled: int) -> nn.Module:
    """Block at 35×35 pixels, 224 + ``pooled`` channels."""
    return Branches(
        _conv(inputs, 64, 1),
        nn.Sequential(_conv(inputs, 48, 1), _conv(48, 64, 5)),
        nn.Sequential(_conv(inputs, 64, 1), _conv(64, 96, 3), _conv(96, 96, 3)),
        _pooled(inputs, pooled),
    )


def _reduce_to_17(inputs: int) -> nn.Module:
    """35×35 to 17×17 pixels, 480 more channels."""
    return Branches(
        _conv(inputs, 384, 3, 2, same=False),
        nn.Sequential(_conv(inputs, 64, 1), _conv(64, 96, 3), _conv(96, 96, 3, 2, same=False)),
        nn.MaxPool2d(3, 2),
    )


def _block_17(width: int) -> nn.Module:
    """Block at 17×17 pixels, 768 channels in and out; 7×7 kernels in two factors."""
    row, column = (1, 7), (7, 1)
    return Branches(
        _conv(768, 192, 1),
        nn.Sequential(_conv(768, width, 1), _conv(width, width, row), _conv(width, 192, column)),
        nn.Sequential(
            _conv(768, width, 1),
            _conv(width, width, column),
            _conv(width, width, row),
            _conv(width, width, column),
            _conv(width, 192, row),
        ),
        _pooled(768, 192),
    )


def _reduce_to_8() -> nn.Module:
    """17×17 to 8×8 pixels, 768 to 1,280 channels."""
    return Branches(
        nn.Sequential(_conv(768, 192, 1), _conv(192, 320, 3, 2, same=False)),
        nn.Sequential(
            _conv(768, 192, 1),
            _conv(192, 192, (1, 7)),
            _conv(192, 192, (7, 1)),
            _conv(192, 192, 3, 2, same=False),
        ),
        nn.MaxPool2d(3, 2),
    )


def _block_8(inputs: int) -> nn.Module:
    """Block at 8×8 pixels, 2,048 channels out."""

    def both() -> nn.Module:
        return Branches(_conv(384, 384, (1, 3)), _conv(384, 384, (3, 1)))

    return Branches(
        _conv(inputs, 320, 1),
        nn.Sequential(_conv(inputs, 384, 1), both()),
        nn.Sequential(_conv(inputs, 448, 1), _conv(448, 384, 3), both()),
        _pooled(inputs, 192),
    )


class InceptionV3(nn.Module):
    """Stem, eleven blocks of parallel convolutions, and two heads; weights Glorot-uniform.

    Args:
        classes: K.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.to_17 = nn.Sequential(
            _conv(3, 32, 3, 2, same=False),
            _conv(32, 32, 3, same=False),
            _conv(32, 64, 3),
            nn.MaxPool2d(3, 2),
            _conv(64, 80, 1),
            _conv(80, 192, 3, same=False),
            nn.MaxPool2d(3, 2),
            _block_35(192, 32),
            _block_35(256, 64),
            _block_35(288, 64),
            _reduce_to_17(288),
            _block_17(128),
            _block_17(160),
            _block_17(160),
            _block_17(192),
        )
        self.auxiliary = nn.Sequential(
            nn.AvgPool2d(5, 3),
            _conv(768, 128, 1),
            _conv(128, 768, 5, same=False),
            nn.Flatten(),
            nn.Linear(768, classes),
        )
        self.main = nn.Sequential(
            _reduce_to_8(),
            _block_8(1280),
            _block_8(2048),
            nn.AvgPool2d(8),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(2048, classes),
        )
        initialise(self, linear=nn.init.xavier_uniform_)

    def forward(self, images: Tensor) -> InceptionLogits:
        """Images -> logits of the main head and, in training, of the auxiliary head."""
        features = self.to_17(images)
        auxiliary = self.auxiliary(features) if self.training else None
        return InceptionLogits(self.main(features), auxiliary)
