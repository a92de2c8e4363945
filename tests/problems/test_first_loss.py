"""The loss before training against its derivation.

With logits that are nearly independent N(0, s²), the expected cross-entropy over K classes is
ln K + ½ s² (1 - 1/K) to second order in s. Where s² follows from the initialisation it is derived
here; where it does not, the loss must lie between ln K - t and ln K + t with a tolerance t that
is stated for each.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from optiscope import problems
from optiscope.problems import Problem

CUT_VARIANCE = 0.8796256**2  # of N(0, 1) cut at ±2


def first_loss(problem: Problem, inputs: Tensor, targets: Tensor, seeds: int = 1) -> float:
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = problem.make_model().eval()
        with torch.no_grad():
            found.append(problem.loss(model(inputs), targets).mean().item())
    return sum(found) / seeds


def images(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(*shape, generator=generator)
    return drawn, torch.randint(10, (shape[0],), generator=generator)


@pytest.mark.parametrize("name", ["digits_logreg", "mnist_logreg", "fmnist_logreg"])
def test_zero_weights_give_the_logarithm_of_ten(name: str) -> None:
    problem = problems.get(name)
    shape = (4, 1, 8, 8) if name.startswith("digits") else (4, 1, 28, 28)
    assert problem.first_loss == pytest.approx(math.log(10))
    assert first_loss(problem, *images(*shape)) == pytest.approx(math.log(10), abs=1e-6)


def test_mnist_mlp_by_the_spread_of_its_layers() -> None:
    """Each layer's variance is σ² times the squared length of its input; ReLU halves it."""
    inputs, targets = images(64, 1, 28, 28)
    variance = 0.03**2 * CUT_VARIANCE
    spread = variance * inputs.flatten(1).square().sum(1).mean().item()
    for width in (1000, 500, 100):
        spread *= variance * width / 2
    derived = math.log(10) + 0.45 * spread
    assert first_loss(problems.get("mnist_mlp"), inputs, targets) == pytest.approx(
        derived, abs=0.01
    )


def test_digits_mlp_by_the_spread_of_its_layers() -> None:
    """He weights keep the mean square: s² = 2 |x|² / 64. Exact expectation by simulation."""
    inputs, targets = images(64, 1, 8, 8)
    spread = 2 / 64 * inputs.flatten(1).square().sum(1).mean().item()
    logits = np.random.default_rng(0).normal(0.0, math.sqrt(spread), (100_000, 10))
    derived = float(np.log(np.exp(logits).sum(1)).mean())
    found = first_loss(problems.get("digits_mlp"), inputs, targets, seeds=100)
    assert found == pytest.approx(derived, abs=0.1)


@pytest.mark.parametrize(
    ("name", "shape", "tolerance"),
    [
        ("mnist_2c2d", (16, 1, 28, 28), 0.35),
        ("cifar10_3c3d", (16, 3, 32, 32), 0.15),
        ("cifar10_allcnnc", (4, 3, 32, 32), 0.05),
        ("cifar10_alexnet", (16, 3, 32, 32), 0.25),
        ("cifar10_roos_uniform", (16, 3, 32, 32), 0.02),
        ("svhn_3c3d", (16, 3, 32, 32), 0.3),
        ("digits_resnet", (64, 1, 8, 8), 0.35),
        ("digits_rnn", (64, 1, 8, 8), 0.35),
    ],
)
def test_small_logits_give_the_logarithm_of_ten(
    name: str, shape: tuple[int, ...], tolerance: float
) -> None:
    found = first_loss(problems.get(name), *images(*shape), seeds=3)
    assert found == pytest.approx(math.log(10), abs=tolerance)


@pytest.mark.parametrize(
    ("name", "window", "embedded"), [("tolstoi_char_rnn", 50, None), ("tolstoi_gpt", 128, 128)]
)
def test_text_models_start_near_the_logarithm_of_83(
    name: str, window: int, embedded: int | None
) -> None:
    """GPT: the last norm gives vectors of squared length D, so that s² = 0.02² D."""
    tokens = torch.randint(83, (4, window + 1), generator=torch.Generator().manual_seed(0))
    derived = math.log(83)
    if embedded is not None:
        derived += 0.5 * 0.02**2 * embedded * (1 - 1 / 83)
    found = first_loss(problems.get(name), tokens[:, :-1], tokens[:, 1:])
    assert found == pytest.approx(derived, abs=0.03)


@pytest.mark.parametrize(
    ("name", "width", "std"), [("cifar10_vit", 192, 0.02), ("digits_attention", 32, 0.1)]
)
def test_transformers_start_between_two_bounds(name: str, width: int, std: float) -> None:
    """The mean over tokens is no longer than a token: 0 ≤ s² ≤ std² D; batch noise 0.03."""
    shape = (4, 3, 32, 32) if name.startswith("cifar") else (64, 1, 8, 8)
    found = first_loss(problems.get(name), *images(*shape), seeds=3)
    assert -0.03 < found - math.log(10) < 0.45 * std**2 * width + 0.03


def test_autoencoder_by_the_spread_of_its_layers() -> None:
    """E |x - out|² = |x|² + 64 var(out): outputs are independent of x and centred at the start."""
    inputs, _ = images(256, 1, 8, 8)

    def squashed(variance: float) -> float:
        def integrand(z: float) -> float:
            return math.tanh(z * math.sqrt(variance)) ** 2 * math.exp(-(z**2) / 2)

        return quad(integrand, -10, 10)[0] / math.sqrt(2 * math.pi)

    length = inputs.flatten(1).square().sum(1).mean().item()
    spread = 2 / (64 + 32) * length
    for fan_in, fan_out in ((32, 8), (8, 32), (32, 64)):
        spread = 2 / (fan_in + fan_out) * fan_in * squashed(spread)
    problem = problems.get("digits_autoencoder")
    found = first_loss(problem, inputs, inputs, seeds=50)
    assert found == pytest.approx(length + 64 * spread, rel=0.03)


def test_vae_starts_with_grey_pixels_and_a_code_near_the_prior() -> None:
    """Sigmoids near ½ give Σ (x - ½)², 784 / 12 for uniform pixels; the rest adds under 15 %."""
    inputs, _ = images(32, 1, 28, 28)
    grey = (inputs - 0.5).square().flatten(1).sum(1).mean().item()
    assert grey == pytest.approx(784 / 12, rel=0.02)
    found = first_loss(problems.get("mnist_vae"), inputs, inputs)
    assert grey < found < 1.15 * grey
