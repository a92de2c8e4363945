"""Initial weights and biases: the distribution that the source states, measured on large layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from optiscope import problems
from optiscope.problems.models.convolutional import all_convolutional_c, three_conv_three_dense
from optiscope.problems.models.residual import residual_network, wide_residual_network

CUT = 0.8796256  # standard deviation of N(0, 1) cut at ±2


def fans(weight: Tensor) -> tuple[int, int]:
    receptive = math.prod(weight.shape[2:])
    return weight.shape[1] * receptive, weight.shape[0] * receptive


def glorot(weight: Tensor) -> float:
    return math.sqrt(2 / sum(fans(weight)))


def layers(model: nn.Module, *kinds: type[nn.Module]) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, kinds) and m.weight.numel() >= 4000]


@pytest.mark.parametrize(
    ("name", "std", "bias"), [("mnist_mlp", 0.03, 0.0), ("fmnist_2c2d", 0.05, 0.05)]
)
def test_truncated_normal(name: str, std: float, bias: float) -> None:
    model = problems.get(name).make_model()
    for layer in layers(model, nn.Linear, nn.Conv2d):
        assert layer.weight.abs().max().item() <= 2 * std
        assert layer.weight.abs().max().item() > 1.9 * std
        count = layer.weight.numel()
        assert layer.weight.std().item() == pytest.approx(CUT * std, rel=4 / math.sqrt(count))
        assert abs(layer.weight.mean().item()) < 4 * std / math.sqrt(count)
    biases = [m.bias for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert all((b == bias).all() for b in biases)


def check_glorot(layer: nn.Module, normal: bool, bias: float) -> None:
    expected = glorot(layer.weight)
    count = layer.weight.numel()
    assert layer.weight.std().item() == pytest.approx(expected, rel=4 / math.sqrt(count))
    largest = layer.weight.abs().max().item() / expected
    assert (largest > 2.5) if normal else (1.7 < largest <= math.sqrt(3) + 1e-6)
    if layer.bias is not None:
        assert (layer.bias == bias).all()


def test_3c3d_has_normal_kernels_and_uniform_linear_weights() -> None:
    model = three_conv_three_dense(10)
    for layer in layers(model, nn.Conv2d):
        check_glorot(layer, normal=True, bias=0.0)
    for layer in layers(model, nn.Linear):
        check_glorot(layer, normal=False, bias=0.0)


def test_all_cnn_c_has_normal_kernels_and_biases_of_a_tenth() -> None:
    for layer in layers(all_convolutional_c(10), nn.Conv2d):
        check_glorot(layer, normal=True, bias=0.1)


def test_wide_resnet_is_glorot_uniform_with_unit_gains() -> None:
    model = wide_residual_network(16, 4, 10)
    for layer in layers(model, nn.Conv2d):
        check_glorot(layer, normal=False, bias=0.0)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((m.weight == 1).all() and (m.bias == 0).all() for m in norms)
    assert all(m.momentum == 0.1 for m in norms)  # keeps 0.9 of the running statistics


def test_vae_is_glorot_uniform() -> None:
    for layer in layers(problems.get("mnist_vae").make_model(), nn.Linear, nn.Conv2d):
        check_glorot(layer, normal=False, bias=0.0)


def test_residual_networks_are_he_normal() -> None:
    for layer in layers(residual_network(2), nn.Conv2d):
        expected = math.sqrt(2 / fans(layer.weight)[0])
        assert layer.weight.std().item() == pytest.approx(
            expected, rel=4 / math.sqrt(layer.weight.numel())
        )


def test_logistic_regression_starts_at_zero() -> None:
    assert all((p == 0).all() for p in problems.get("mnist_logreg").make_model().parameters())


def test_roos_uniform_is_within_the_root_of_the_fan_in() -> None:
    for layer in layers(problems.get("cifar10_roos_uniform").make_model(), nn.Linear, nn.Conv2d):
        bound = 1 / math.sqrt(fans(layer.weight)[0])
        assert 0.99 * bound < layer.weight.abs().max().item() <= bound
        assert 0 < layer.bias.abs().max().item() <= bound


def test_recurrence_starts_orthogonal() -> None:
    weight = problems.get("digits_rnn").make_model().recur.weight.detach().double()
    torch.testing.assert_close(weight @ weight.T, torch.eye(64).double(), rtol=0, atol=1e-5)
