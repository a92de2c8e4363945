"""TensorFlow's "same" padding against its definition, pixel by pixel."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from optiscope.problems.models.same_padding import (
    SameConv2d,
    SameConvTranspose2d,
    SameMaxPool2d,
    same_padding,
)

CASES = [
    (28, 5, 1),
    (28, 4, 2),
    (14, 4, 2),
    (7, 4, 1),
    (32, 3, 2),
    (28, 3, 2),
    (12, 3, 2),
    (9, 1, 2),
]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (28, 5, 1, (2, 2)),
        (28, 4, 2, (1, 1)),
        (7, 4, 1, (1, 2)),
        (32, 3, 2, (0, 1)),
        (28, 3, 2, (0, 1)),
        (12, 2, 2, (0, 0)),
        (9, 1, 2, (0, 0)),
    ],
)
def test_the_odd_pixel_goes_after(
    size: int, kernel: int, stride: int, expected: tuple[int, int]
) -> None:
    assert same_padding(size, kernel, stride) == expected


def windows(image: torch.Tensor, kernel: int, stride: int) -> dict[tuple[int, int], list]:
    """Pixels (row in kernel, column in kernel, value) that each output sees, by the definition."""
    size = image.shape[-1]
    outputs = math.ceil(size / stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    seen: dict[tuple[int, int], list] = {}
    for i, j in itertools.product(range(outputs), repeat=2):
        seen[i, j] = [
            (a, b, image[i * stride + a - before, j * stride + b - before])
            for a, b in itertools.product(range(kernel), repeat=2)
            if 0 <= i * stride + a - before < size and 0 <= j * stride + b - before < size
        ]
    return seen


@pytest.mark.parametrize(("size", "kernel", "stride"), CASES)
def test_convolution(size: int, kernel: int, stride: int) -> None:
    layer = SameConv2d(1, 1, kernel, stride).double()
    image = torch.randn(size, size, dtype=torch.float64)
    weight, bias = layer.weight.detach()[0, 0], layer.bias.detach()[0]
    out = layer(image[None, None]).detach()[0, 0]
    assert out.shape == (math.ceil(size / stride),) * 2
    for place, seen in windows(image, kernel, stride).items():
        expected = bias + sum(weight[a, b] * value for a, b, value in seen)
        assert out[place] == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize(("size", "kernel", "stride"), CASES)
def test_pooling(size: int, kernel: int, stride: int) -> None:
    image = -1.0 - torch.rand(size, size, dtype=torch.float64)  # below 0: zero padding would win
    out = SameMaxPool2d(kernel, stride)(image[None, None])[0, 0]
    for place, seen in windows(image, kernel, stride).items():
        assert out[place] == max(float(value) for _, _, value in seen)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(14, 4, 2), (14, 4, 1), (7, 4, 1), (8, 3, 2)]
)
def test_transposed_convolution_is_the_adjoint(size: int, kernel: int, stride: int) -> None:
    convolution = SameConv2d(2, 3, kernel, stride, bias=False).double()
    transposed = SameConvTranspose2d(3, 2, kernel, stride).double()
    with torch.no_grad():
        transposed.weight.copy_(convolution.weight)
        transposed.bias.zero_()
        image = torch.randn(1, 2, size, size, dtype=torch.float64)
        forward = convolution(image)
        other = torch.randn_like(forward)
        back = transposed(other)
    assert back.shape == image.shape
    assert (forward * other).sum().item() == pytest.approx((image * back).sum().item(), rel=1e-12)
