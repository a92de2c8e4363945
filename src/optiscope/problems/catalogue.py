"""What is known of each shipped problem without importing torch.

A test keeps every entry equal to the problem that it announces.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENTRIES", "Entry"]

FASHION = "fashion_mnist"


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


ENTRIES: tuple[Entry, ...] = (
    Entry("digits_logreg", "digits", "digits", "logistic regression", 650, 32, 10),
    Entry("digits_mlp", "digits", "digits", "perceptron, 3 layers", 12_060, 32, 10),
    Entry("digits_conv", "digits", "digits", "2 convolutions, 2 linear", 13_706, 32, 10),
    Entry("mnist_logreg", "mnist", "mnist", "logistic regression", 7_850, 128, 50),
    Entry("mnist_mlp", "mnist", "mnist", "perceptron, 4 layers", 1_336_610, 128, 100),
    Entry("mnist_2c2d", "mnist", "mnist", "2 convolutions, 2 linear", 3_274_634, 128, 100),
    Entry("fmnist_logreg", "mnist", FASHION, "logistic regression", 7_850, 128, 50),
    Entry("fmnist_mlp", "mnist", FASHION, "perceptron, 4 layers", 1_336_610, 128, 100),
    Entry("fmnist_2c2d", "mnist", FASHION, "2 convolutions, 2 linear", 3_274_634, 128, 100),
    Entry("fmnist_2c2d_10k", "mnist", FASHION, "2 convolutions, 2 linear", 3_274_634, 128, 20),
    Entry("cifar10_3c3d", "cifar", "cifar10", "3 convolutions, 3 linear", 895_210, 128, 100),
    Entry("quadratic_deep", "quadratic", "synthetic", "quadratic, 100 dimensions", 100, 128, 100),
)
