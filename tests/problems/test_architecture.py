"""Every model, layer by layer, against tables written from the published descriptions.

The tables are transcribed from DeepOBS's descriptions and the papers, not from the models' code.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from layer_trace import meta_trace

from optiscope import problems

Table = list[str]

GREY, COLOUR, DIGIT = (1, 28, 28), (3, 32, 32), (1, 8, 8)


def lines(text: str) -> Table:
    return [line.strip() for line in text.strip().splitlines()]


def perceptron(*widths: int) -> Table:
    """Flatten, then linear layers with ReLU between them."""
    rows = [f"reshape {widths[0]}"]
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        rows.append(f"linear {outputs} {inputs * outputs + outputs}")
        if i < len(widths) - 2:
            rows.append(f"relu {outputs}")
    return rows


TWO_C_TWO_D = lines(
    """
    conv5x5/1 32x28x28 832
    relu 32x28x28
    maxpool2/2 32x14x14
    conv5x5/1 64x14x14 51264
    relu 64x14x14
    maxpool2/2 64x7x7
    reshape 3136
    linear 1024 3212288
    relu 1024
    linear 10 10250
    """
)

VAE = lines(
    """
    conv4x4/2 64x14x14 1088
    leaky0.3 64x14x14
    dropout0.2 64x14x14
    conv4x4/2 64x7x7 65600
    leaky0.3 64x7x7
    dropout0.2 64x7x7
    conv4x4/1 64x7x7 65600
    leaky0.3 64x7x7
    dropout0.2 64x7x7
    reshape 3136
    linear 8 25096
    linear 8 25096
    linear 24 216
    leaky0.3 24
    linear 49 1225
    leaky0.3 49
    reshape 1x7x7
    deconv4x4/2 64x14x14 1088
    relu 64x14x14
    dropout0.2 64x14x14
    deconv4x4/1 64x14x14 65600
    relu 64x14x14
    dropout0.2 64x14x14
    deconv4x4/1 64x14x14 65600
    relu 64x14x14
    dropout0.2 64x14x14
    reshape 12544
    linear 784 9835280
    sigmoid 784
    reshape 1x28x28
    """
)


def three_c_three_d(classes: int) -> Table:
    return lines(
        f"""
        standardise 3x32x32
        conv5x5/1 64x28x28 4864
        relu 64x28x28
        maxpool3/2 64x14x14
        conv3x3/1 96x12x12 55392
        relu 96x12x12
        maxpool3/2 96x6x6
        conv3x3/1 128x6x6 110720
        relu 128x6x6
        maxpool3/2 128x3x3
        reshape 1152
        linear 512 590336
        relu 512
        linear 256 131328
        relu 256
        linear {classes} {257 * classes}
        """
    )


def all_cnn_c(classes: int) -> Table:
    return lines(
        f"""
        standardise 3x32x32
        dropout0.2 3x32x32
        conv3x3/1 96x32x32 2688
        relu 96x32x32
        conv3x3/1 96x32x32 83040
        relu 96x32x32
        conv3x3/2 96x16x16 83040
        relu 96x16x16
        dropout0.5 96x16x16
        conv3x3/1 192x16x16 166080
        relu 192x16x16
        conv3x3/1 192x16x16 331968
        relu 192x16x16
        conv3x3/2 192x8x8 331968
        relu 192x8x8
        dropout0.5 192x8x8
        conv3x3/1 192x6x6 331968
        relu 192x6x6
        conv1x1/1 192x6x6 37056
        relu 192x6x6
        conv1x1/1 {classes}x6x6 {193 * classes}
        relu {classes}x6x6
        avgpool6/6 {classes}x1x1
        reshape {classes}
        """
    )


def vgg(blocks: str, classes: int, before: Table) -> Table:
    """``blocks`` as in the source: "64x2 128x2 ..." of 3×3 convolutions, pooled by 2 after each."""
    rows, channels, side = list(before), 3, 224
    for block in blocks.split():
        width, count = (int(word) for word in block.split("x"))
        for _ in range(count):
            rows.append(f"conv3x3/1 {width}x{side}x{side} {channels * width * 9 + width}")
            rows.append(f"relu {width}x{side}x{side}")
            channels = width
        side //= 2
        rows.append(f"maxpool2/2 {width}x{side}x{side}")
    return rows + lines(
        f"""
        reshape 25088
        linear 4096 102764544
        relu 4096
        dropout0.5 4096
        linear 4096 16781312
        relu 4096
        dropout0.5 4096
        linear {classes} {4097 * classes}
        """
    )


VGG16, VGG19 = "64x2 128x2 256x3 512x3 512x3", "64x2 128x2 256x4 512x4 512x4"
ENLARGED = ["standardise 3x32x32", "upsample-bilinear 3x224x224"]
PHOTOGRAPH = ["crop 3x224x224", "standardise 3x224x224"]


def wide_resnet(units: int, classes: int) -> Table:
    """Groups of 64, 128, 256 channels; the shortcut convolution follows the first norm."""
    rows = ["standardise 3x32x32", "conv3x3/1 16x32x32 432"]
    channels, side = 16, 32
    for width, first_stride in ((64, 1), (128, 2), (256, 2)):
        for unit in range(units):
            stride = first_stride if unit == 0 else 1
            rows.append(f"norm {channels}x{side}x{side} {2 * channels}")
            side //= stride
            shape = f"{width}x{side}x{side}"
            if unit == 0:
                rows.append(f"conv1x1/{stride} {shape} {channels * width}")
            rows.append(f"conv3x3/{stride} {shape} {9 * channels * width}")
            rows.append(f"norm {shape} {2 * width}")
            rows.append(f"conv3x3/1 {shape} {9 * width * width}")
            channels = width
    return rows + lines(
        f"""
        norm 256x8x8 512
        relu 256x8x8
        avgpool8/8 256x1x1
        reshape 256
        linear {classes} {257 * classes}
        """
    )


def thin_resnet(
    before: Table, channels: int, width: int, side: int, units: int, stages: int
) -> Table:
    """He et al. 2016, section 4.2: a stage's first unit halves pixels; shortcuts are bare."""
    rows = [*before, f"conv3x3/1 {width}x{side}x{side} {9 * channels * width}"]
    rows += [f"norm {width}x{side}x{side} {2 * width}", f"relu {width}x{side}x{side}"]
    inputs = width
    for stage in range(stages):
        outputs = width * 2**stage
        for unit in range(units):
            stride = 2 if stage and not unit else 1
            side //= stride
            shape = f"{outputs}x{side}x{side}"
            rows.append(f"conv3x3/{stride} {shape} {9 * inputs * outputs}")
            rows.append(f"norm {shape} {2 * outputs}")
            rows.append(f"conv3x3/1 {shape} {9 * outputs * outputs}")
            rows.append(f"norm {shape} {2 * outputs}")
            inputs = outputs
    rows += [f"avgpool{side}/{side} {inputs}x1x1", f"reshape {inputs}"]
    return [*rows, f"linear 10 {11 * inputs - inputs + 10}"]


def transformer_blocks(count: int, tokens: int, width: int, dropout: bool) -> Table:
    hidden, drop = 4 * width, "dropout0.1" if dropout else "dropout0.0"
    block = [
        f"norm {tokens}x{width} {2 * width}",
        f"linear {tokens}x{3 * width} {3 * width * (width + 1)}",
        f"linear {tokens}x{width} {width * (width + 1)}",
        f"{drop} {tokens}x{width}",
        f"norm {tokens}x{width} {2 * width}",
        f"linear {tokens}x{hidden} {hidden * (width + 1)}",
        f"gelu {tokens}x{hidden}",
        f"linear {tokens}x{width} {width * (hidden + 1)}",
        f"{drop} {tokens}x{width}",
    ]
    return block * count + [f"norm {tokens}x{width} {2 * width}"]


CHARACTER_RNN = lines(
    """
    embedding 50x128 10624
    lstm-2-dropout0.2 50x128 264192
    linear 50x83 10707
    """
)

GPT = [
    "embedding 128x128 10624",
    "embedding 128 16384",
    "dropout0.1 128x128",
    *transformer_blocks(6, 128, 128, dropout=True),
    "linear 128x83 10624",
]


def vision_transformer(side: int) -> Table:
    """Square patches of that side; width 192."""
    tokens, numbers = (32 // side) ** 2, 3 * side**2
    return [
        "standardise 3x32x32",
        f"unfold {numbers}x{tokens}",
        f"linear {tokens}x192 {192 * (numbers + 1)}",
        f"dropout0.1 {tokens}x192",
        *transformer_blocks(6, tokens, 192, dropout=True),
        "linear 10 1930",
    ]


ALEXNET = lines(
    """
    standardise 3x32x32
    conv5x5/1 64x32x32 4864
    relu 64x32x32
    maxpool3/2 64x16x16
    conv5x5/1 64x16x16 102464
    relu 64x16x16
    maxpool3/2 64x8x8
    reshape 4096
    linear 384 1573248
    relu 384
    linear 192 73920
    relu 192
    linear 10 1930
    """
)

DIGITS_CONV = lines(
    """
    conv3x3/1 16x8x8 160
    relu 16x8x8
    maxpool2/2 16x4x4
    conv3x3/1 32x4x4 4640
    relu 32x4x4
    maxpool2/2 32x2x2
    reshape 128
    linear 64 8256
    relu 64
    linear 10 650
    """
)

DIGITS_RNN = ["linear 8x64 576", *["linear 64 4096"] * 7, "linear 10 650"]

DIGITS_ATTENTION = [
    "unfold 4x16",
    "linear 16x32 160",
    "dropout0.0 16x32",
    *transformer_blocks(2, 16, 32, dropout=False),
    "linear 10 330",
]

DIGITS_AUTOENCODER = lines(
    """
    reshape 64
    linear 32 2080
    tanh 32
    linear 8 264
    tanh 8
    linear 32 288
    tanh 32
    linear 64 2112
    reshape 1x8x8
    """
)

TABLES: dict[str, tuple[tuple[int, ...], Table]] = {
    "digits_logreg": (DIGIT, perceptron(64, 10)),
    "digits_mlp": (DIGIT, perceptron(64, 100, 50, 10)),
    "digits_conv": (DIGIT, DIGITS_CONV),
    "digits_conv_groups": (DIGIT, DIGITS_CONV),
    "digits_resnet": (DIGIT, thin_resnet([], 1, 8, 8, units=1, stages=2)),
    "digits_rnn": (DIGIT, DIGITS_RNN),
    "digits_attention": (DIGIT, DIGITS_ATTENTION),
    "digits_autoencoder": (DIGIT, DIGITS_AUTOENCODER),
    "mnist_logreg": (GREY, perceptron(784, 10)),
    "mnist_mlp": (GREY, perceptron(784, 1000, 500, 100, 10)),
    "mnist_2c2d": (GREY, TWO_C_TWO_D),
    "mnist_vae": (GREY, VAE),
    "fmnist_logreg": (GREY, perceptron(784, 10)),
    "fmnist_mlp": (GREY, perceptron(784, 1000, 500, 100, 10)),
    "fmnist_2c2d": (GREY, TWO_C_TWO_D),
    "fmnist_2c2d_10k": (GREY, TWO_C_TWO_D),
    "fmnist_vae": (GREY, VAE),
    "cifar10_3c3d": (COLOUR, three_c_three_d(10)),
    "cifar10_vgg16": (COLOUR, vgg(VGG16, 10, ENLARGED)),
    "cifar10_vgg19": (COLOUR, vgg(VGG19, 10, ENLARGED)),
    "cifar10_allcnnc": (COLOUR, all_cnn_c(10)),
    "cifar10_wrn164": (COLOUR, wide_resnet(2, 10)),
    "cifar10_wrn404": (COLOUR, wide_resnet(6, 10)),
    "cifar10_3c3d_groups": (COLOUR, three_c_three_d(10)),
    "cifar10_resnet20": (COLOUR, thin_resnet(["standardise 3x32x32"], 3, 16, 32, 3, 3)),
    "cifar10_resnet56": (COLOUR, thin_resnet(["standardise 3x32x32"], 3, 16, 32, 9, 3)),
    "cifar10_alexnet": (COLOUR, ALEXNET),
    "cifar10_vit": (COLOUR, vision_transformer(4)),
    "cifar10_vit_patch8": (COLOUR, vision_transformer(8)),
    "cifar10_roos_glorot": (COLOUR, three_c_three_d(10)),
    "cifar10_roos_uniform": (COLOUR, three_c_three_d(10)),
    "cifar100_3c3d": (COLOUR, three_c_three_d(100)),
    "cifar100_vgg16": (COLOUR, vgg(VGG16, 100, ENLARGED)),
    "cifar100_vgg19": (COLOUR, vgg(VGG19, 100, ENLARGED)),
    "cifar100_allcnnc": (COLOUR, all_cnn_c(100)),
    "cifar100_wrn164": (COLOUR, wide_resnet(2, 100)),
    "cifar100_wrn404": (COLOUR, wide_resnet(6, 100)),
    "svhn_3c3d": (COLOUR, three_c_three_d(10)),
    "svhn_wrn164": (COLOUR, wide_resnet(2, 10)),
    "imagenet_vgg16": ((3, 256, 256), vgg(VGG16, 1000, PHOTOGRAPH)),
    "imagenet_vgg19": ((3, 256, 256), vgg(VGG19, 1000, PHOTOGRAPH)),
    "tolstoi_char_rnn": ((50,), CHARACTER_RNN),
    "tolstoi_gpt": ((128,), GPT),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_layer_is_as_published(name: str) -> None:
    shape, table = TABLES[name]
    dtype = torch.int64 if len(shape) == 1 else torch.float32
    assert meta_trace(problems.get(name).make_model, shape, dtype) == table


def inception_stages() -> Iterator[str]:
    """Channels and pixels after each stage: Szegedy et al. 2016, table 1, figures 5 to 7."""
    yield from ("32x149x149", "32x147x147", "64x147x147", "64x73x73")
    yield from ("80x73x73", "192x71x71", "192x35x35")
    yield from ("256x35x35", "288x35x35", "288x35x35")
    yield from ("768x17x17",) * 5
    yield from ("1280x8x8", "2048x8x8", "2048x8x8", "2048x1x1")


def test_inception_has_the_published_stages() -> None:
    shapes: list[str] = []
    with torch.device("meta"):
        model = problems.get("imagenet_inception_v3").make_model()
        network = model[-1]
        for stage in [*network.to_17, *network.main[:4]]:
            stage.register_forward_hook(
                lambda _, __, out: shapes.append("x".join(map(str, out.shape[1:])))
            )
        out = model(torch.zeros(2, 3, 342, 342))
    assert shapes == list(inception_stages())
    assert out.main.shape == out.auxiliary.shape == (2, 1000)
    assert model.eval()(torch.zeros(1, 3, 342, 342, device="meta")).auxiliary is None


PUBLISHED_COUNTS: dict[str, int] = {
    # DeepOBS's own figures
    "mnist_logreg": 7_850,
    "mnist_mlp": 1_336_610,
    "mnist_2c2d": 3_274_634,
    "mnist_vae": 10_151_489,
    "fmnist_logreg": 7_850,
    "fmnist_mlp": 1_336_610,
    "fmnist_2c2d": 3_274_634,
    "fmnist_vae": 10_151_489,
    "cifar10_3c3d": 895_210,
    "cifar10_vgg16": 134_301_514,
    "cifar10_vgg19": 139_611_210,
    "cifar100_3c3d": 918_340,
    "cifar100_allcnnc": 1_387_108,
    "cifar100_vgg16": 134_670_244,
    "cifar100_vgg19": 139_979_940,
    "cifar100_wrn164": 2_772_020,
    "cifar100_wrn404": 8_972_340,
    "svhn_3c3d": 895_210,
    "svhn_wrn164": 2_748_890,
    "quadratic_deep": 100,
    "tolstoi_char_rnn": 285_523,
    "two_d_rosenbrock": 2,
    "two_d_beale": 2,
    "two_d_branin": 2,
    # torchvision's figures for the same networks
    "imagenet_vgg16": 138_357_544,
    "imagenet_vgg19": 143_667_240,
    "imagenet_inception_v3": 27_161_264,
    # derived by hand
    "cifar10_resnet20": 432
    + 32
    + 3 * 4608
    + 6 * 32
    + 4608
    + 5 * 9216
    + 6 * 64
    + 18432
    + 5 * 36864
    + 6 * 128
    + 650,
    "cifar10_resnet56": 432
    + 32
    + 9 * 4608
    + 18 * 32
    + 4608
    + 17 * 9216
    + 18 * 64
    + 18432
    + 17 * 36864
    + 18 * 128
    + 650,
    "cifar10_alexnet": 75 * 64 + 64 + 1600 * 64 + 64 + 4097 * 384 + 385 * 192 + 193 * 10,
    "cifar10_vit": 49 * 192 + 64 * 192 + 6 * 444_864 + 2 * 192 + 193 * 10,
    "cifar10_vit_patch8": 193 * 192 + 16 * 192 + 6 * 444_864 + 2 * 192 + 193 * 10,
    "digits_attention": 5 * 32 + 16 * 32 + 2 * 12_704 + 2 * 32 + 33 * 10,
    "cifar10_allcnnc": 1_387_108 - 193 * 90,
    "cifar10_wrn164": 2_772_020 - 257 * 90,
    "cifar10_wrn404": 8_972_340 - 257 * 90,
}


@pytest.mark.parametrize("name", problems.names())
def test_parameter_count(name: str) -> None:
    problem = problems.get(name)
    with torch.device("meta"):
        count = sum(p.numel() for p in problem.make_model().parameters() if p.requires_grad)
    assert count == problem.parameters
    if name in PUBLISHED_COUNTS:
        assert count == PUBLISHED_COUNTS[name]
    elif not is_textbook(name):  # theirs are counted in tests of their own
        assert count == sum(int(row.split()[2]) for row in distinct(TABLES[name][1]))


def is_textbook(name: str) -> bool:
    return name.startswith("textbook_")


def distinct(table: Table) -> Table:
    """Rows with parameters, a weight used at every step of a recurrence counted once."""
    rows = [row for row in table if len(row.split()) == 3]
    return [row for i, row in enumerate(rows) if row != "linear 64 4096" or rows[i - 1] != row]


def test_every_problem_has_a_table() -> None:
    without = {"imagenet_inception_v3", "quadratic_deep"}
    without |= {"two_d_rosenbrock", "two_d_beale", "two_d_branin"}
    listed = {name for name in problems.names() if not is_textbook(name)}
    assert set(TABLES) == listed - without
