"""Convolution and pooling whose output has ceil(size / stride) pixels a side, as in TensorFlow.

The padding that this needs may be odd; the extra pixel then goes to the right and to the bottom.
PyTorch's own ``padding`` is symmetric and would shift the grid, which changes the function.

Index legend: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SameConv2d", "SameConvTranspose2d", "SameMaxPool2d", "same_padding"]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels to add before and after a side of ``size`` pixels; the odd one goes after."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad(images: Tensor, kernel: int, stride: int, value: float) -> Tensor:
    top, bottom = same_padding(images.shape[-2], kernel, stride)
    left, right = same_padding(images.shape[-1], kernel, stride)
    if top == bottom == left == right == 0:
        return images
    return F.pad(images, (left, right, top, bottom), value=value)


class SameConv2d(nn.Conv2d):
    """Convolution [B, C, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)], padded with 0."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = True
    ) -> None:
        symmetric = kernel // 2 if stride == 1 and kernel % 2 else 0
        super().__init__(inputs, outputs, kernel, stride, padding=symmetric, bias=bias)
        self._symmetric = bool(symmetric) or kernel == 1

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> [B, out, H', W']."""
        if self._symmetric:
            return super().forward(images)
        return super().forward(_pad(images, self.kernel_size[0], self.stride[0], 0.0))


class SameMaxPool2d(nn.Module):
    """Largest value of each window; what is padded never wins."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)]."""
        padded = _pad(images, self.kernel, self.stride, float("-inf"))
        return F.max_pool2d(padded, self.kernel, self.stride)

    def extra_repr(self) -> str:
        """What distinguishes this layer in a printed model."""
        return f"{self.kernel}, stride={self.stride}"


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Gradient of `SameConv2d` with respect to its input: [B, C, H, W] -> [B, out, sH, sW]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride)

    def forward(self, images: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Images [B, C, H, W] -> [B, out, stride·H, stride·W]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        full = super().forward(images, output_size)
        height, width = stride * images.shape[-2], stride * images.shape[-1]
        top, _ = same_padding(height, kernel, stride)
        left, _ = same_padding(width, kernel, stride)
        return full[..., top : top + height, left : left + width]
