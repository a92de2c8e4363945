"""Small networks in float64 whose matrices can be written out."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from optiscope import EmpiricalRisk


def digits(n: int = 60, features: int = 64) -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(images[:n, :features], dtype=torch.float64) / 16
    return x, torch.as_tensor(labels[:n])


def one_hot(labels: Tensor) -> Tensor:
    return F.one_hot(labels, 10).double()


def signs(labels: Tensor) -> Tensor:
    return 2 * one_hot(labels) - 1


def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.relu(1 - signs(targets) * outputs).mean()


def squared_hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.relu(1 - signs(targets) * outputs).square().mean()


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs, one_hot(targets))


def network(activation: type[nn.Module] = nn.Tanh, sizes: tuple[int, ...] = (16, 8, 10)) -> Any:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1]).double()


def risk_of_network(
    activation: type[nn.Module] = nn.Tanh,
    loss: Any = F.cross_entropy,
    sizes: tuple[int, ...] = (16, 8, 10),
    batches: tuple[int, ...] = (25, 25, 10),
) -> EmpiricalRisk:
    x, y = digits(sum(batches), sizes[0])
    parts = zip(x.split(list(batches)), y.split(list(batches)), strict=True)
    return EmpiricalRisk(network(activation, sizes), loss, list(parts))


def dense(operator: Any) -> Tensor:
    matrix = operator @ torch.eye(operator.size, dtype=operator.dtype)
    return (matrix + matrix.T) / 2
