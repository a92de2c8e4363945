"""What is known of each shipped problem without importing torch.

A test keeps every entry equal to the problem that it announces.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEVELOPMENT", "ENTRIES", "Entry"]

FASHION = "fashion_mnist"
SYNTHETIC = "synthetic"
OTHERS = "cifar_others"
VIT = "vision transformer, 6 blocks"


@dataclass(frozen=True)
class Entry:
    """One line of ``optiscope list problems``: a problem's name, size and setting.

    Attributes:
        name: word by which studies name the problem, and its name in ``family``.
        family: module of this package that holds it.
        dataset: the data's name in ``optiscope data list``; "synthetic" where there is none.
        model: architecture in a few words.
        parameters: number of trainable parameters.
        batch_size: samples per training step.
        epochs: horizon.
    """

    name: str
    family: str
    dataset: str
    model: str
    parameters: int
    batch_size: int
    epochs: int


def _textbook(
    name: str, file: str, model: str, parameters: int, batch_size: int, epochs: int
) -> Entry:
    name, family = f"textbook_{name}", f"textbook.{file}"
    return Entry(name, family, SYNTHETIC, model, parameters, batch_size, epochs)


ENTRIES: tuple[Entry, ...] = (
    Entry("digits_logreg", "digits", "digits", "logistic regression", 650, 32, 10),
    Entry("digits_mlp", "digits", "digits", "perceptron, 3 layers", 12_060, 32, 10),
    Entry("digits_conv", "digits", "digits", "2 convolutions, 2 linear", 13_706, 32, 10),
    Entry("digits_conv_groups", "digits", "digits", "2 convolutions, 2 linear", 13_706, 32, 10),
    Entry("digits_resnet", "digits", "digits", "residual, 2 units", 4_962, 32, 10),
    Entry("digits_rnn", "digits", "digits", "recurrent, 64 units", 5_322, 32, 10),
    Entry("digits_attention", "digits", "digits", "attention, 2 blocks", 26_474, 32, 10),
    Entry("digits_autoencoder", "digits", "digits", "autoencoder, 8 codes", 4_744, 32, 10),
    Entry("mnist_logreg", "mnist", "mnist", "logistic regression", 7_850, 128, 50),
    Entry("mnist_mlp", "mnist", "mnist", "perceptron, 4 layers", 1_336_610, 128, 100),
    Entry("mnist_2c2d", "mnist", "mnist", "2 convolutions, 2 linear", 3_274_634, 128, 100),
    Entry("mnist_vae", "mnist", "mnist", "variational autoencoder", 10_151_489, 64, 50),
    Entry("fmnist_logreg", "mnist", FASHION, "logistic regression", 7_850, 128, 50),
    Entry("fmnist_mlp", "mnist", FASHION, "perceptron, 4 layers", 1_336_610, 128, 100),
    Entry("fmnist_2c2d", "mnist", FASHION, "2 convolutions, 2 linear", 3_274_634, 128, 100),
    Entry("fmnist_2c2d_10k", "mnist", FASHION, "2 convolutions, 2 linear", 3_274_634, 128, 20),
    Entry("fmnist_vae", "mnist", FASHION, "variational autoencoder", 10_151_489, 64, 100),
    Entry("cifar10_3c3d", "cifar", "cifar10", "3 convolutions, 3 linear", 895_210, 128, 100),
    Entry("cifar10_vgg16", "cifar", "cifar10", "VGG-16 at 224 pixels", 134_301_514, 128, 100),
    Entry("cifar10_vgg19", "cifar", "cifar10", "VGG-19 at 224 pixels", 139_611_210, 128, 100),
    Entry("cifar10_allcnnc", "cifar", "cifar10", "All-CNN-C", 1_369_738, 256, 350),
    Entry("cifar10_wrn164", "cifar", "cifar10", "Wide ResNet 16-4", 2_748_890, 128, 160),
    Entry("cifar10_wrn404", "cifar", "cifar10", "Wide ResNet 40-4", 8_949_210, 128, 160),
    Entry("cifar10_3c3d_groups", OTHERS, "cifar10", "3 convolutions, 3 linear", 895_210, 128, 100),
    Entry("cifar10_resnet20", OTHERS, "cifar10", "ResNet-20", 269_722, 128, 180),
    Entry("cifar10_resnet56", OTHERS, "cifar10", "ResNet-56", 853_018, 128, 180),
    Entry("cifar10_alexnet", OTHERS, "cifar10", "small AlexNet, bare", 1_756_426, 128, 100),
    Entry("cifar10_vit", OTHERS, "cifar10", VIT, 2_693_194, 128, 100),
    Entry("cifar10_vit_patch8", OTHERS, "cifar10", VIT, 2_711_626, 128, 100),
    Entry("cifar10_roos_glorot", OTHERS, "cifar10", "3 convolutions, 3 linear", 895_210, 32, 250),
    Entry("cifar10_roos_uniform", OTHERS, "cifar10", "3 convolutions, 3 linear", 895_210, 32, 250),
    Entry("cifar100_3c3d", "cifar", "cifar100", "3 convolutions, 3 linear", 918_340, 128, 100),
    Entry("cifar100_vgg16", "cifar", "cifar100", "VGG-16 at 224 pixels", 134_670_244, 128, 100),
    Entry("cifar100_vgg19", "cifar", "cifar100", "VGG-19 at 224 pixels", 139_979_940, 128, 100),
    Entry("cifar100_allcnnc", "cifar", "cifar100", "All-CNN-C", 1_387_108, 256, 350),
    Entry("cifar100_wrn164", "cifar", "cifar100", "Wide ResNet 16-4", 2_772_020, 128, 160),
    Entry("cifar100_wrn404", "cifar", "cifar100", "Wide ResNet 40-4", 8_972_340, 128, 160),
    Entry("svhn_3c3d", "svhn", "svhn", "3 convolutions, 3 linear", 895_210, 128, 100),
    Entry("svhn_wrn164", "svhn", "svhn", "Wide ResNet 16-4", 2_748_890, 128, 160),
    Entry("imagenet_vgg16", "imagenet", "imagenet", "VGG-16", 138_357_544, 256, 74),
    Entry("imagenet_vgg19", "imagenet", "imagenet", "VGG-19", 143_667_240, 256, 74),
    Entry("imagenet_inception_v3", "imagenet", "imagenet", "Inception-v3", 27_161_264, 128, 100),
    Entry("tolstoi_char_rnn", "text", "tolstoi", "LSTM, 2 layers", 285_523, 50, 200),
    Entry("tolstoi_gpt", "text", "tolstoi", "transformer, 6 blocks", 1_227_520, 32, 20),
    Entry("quadratic_deep", "quadratic", SYNTHETIC, "quadratic, 100 dimensions", 100, 128, 100),
    Entry("two_d_rosenbrock", "two_d", SYNTHETIC, "Rosenbrock's function", 2, 128, 100),
    Entry("two_d_beale", "two_d", SYNTHETIC, "Beale's function", 2, 128, 100),
    Entry("two_d_branin", "two_d", SYNTHETIC, "Branin's function", 2, 128, 100),
    _textbook("ill_conditioned", "ill_conditioned", "quadratic, condition 100", 2, 16, 300),
    _textbook("symmetry", "symmetry", "2 tanh units", 4, 64, 300),
    _textbook("symmetry_of_order", "symmetry", "2 tanh units, output fixed", 2, 64, 300),
    _textbook("symmetry_of_sign", "symmetry", "1 tanh unit", 2, 64, 300),
    _textbook("saddle", "saddle", "saddle between two minima", 2, 16, 300),
    _textbook("plateau", "plateau", "well in a plain", 2, 16, 400),
    _textbook("cliff", "cliff", "recurrent unit, 50 steps", 2, 16, 200),
    _textbook("wrong_side", "wrong_side", "downhill away from the minimum", 2, 16, 300),
    _textbook("redundancy", "redundancy", "two weights in series", 2, 16, 100),
    _textbook("one_weight", "redundancy", "one weight", 1, 16, 100),
    _textbook("repeated_matrix", "repeated_matrix", "one matrix, 20 times", 2, 64, 300),
    _textbook("adding", "adding", "recurrent, 32 units, 20 steps", 1_153, 50, 30),
    _textbook("noisy_quadratic", "noisy_quadratic", "quadratic, 500 dimensions", 500, 1, 1),
)


def _development(
    name: str, file: str, dataset: str, model: str, parameters: int, batch_size: int
) -> Entry:
    return Entry(f"dev_{name}", f"development.{file}", dataset, model, parameters, batch_size, 24)


SOURCES = "python_sources"

DEVELOPMENT: tuple[Entry, ...] = (
    _development("logreg", "images", FASHION, "logistic regression", 7_850, 32),
    _development("resnet", "images", FASHION, "residual, batch norm, 2 units", 10_894, 32),
    _development("mixer", "images", FASHION, "MLP-mixer, 2 blocks", 39_786, 32),
    _development("vit", "images", "mnist", "vision transformer, 2 blocks", 60_298, 32),
    _development("autoencoder", "images", "mnist", "autoencoder, 16 codes", 342_576, 32),
    _development("gpt", "source_text", SOURCES, "transformer, 2 blocks", 115_584, 8),
    _development("gru", "source_text", SOURCES, "GRU, 96 units", 56_113, 8),
    _development("graph", "generated", SYNTHETIC, "graph network, 3 layers", 5_381, 32),
    _development("recommender", "generated", SYNTHETIC, "embeddings, perceptron", 58_401, 128),
)
"""Problems on which optimizers may be developed: studies name them as any other, `optiscope list
problems --development` lists them."""
