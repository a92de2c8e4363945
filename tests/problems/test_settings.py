"""Batch sizes, horizons, regularization and baselines against the published settings."""

from __future__ import annotations

import pytest
import torch

from optiscope import problems
from optiscope.problems.problem import regularization

# Batch size, epochs and L2 of DeepOBS; None where the original sets none.
PUBLISHED: dict[str, tuple[int | None, int | None, float]] = {
    "mnist_logreg": (128, 50, 0.0),
    "mnist_mlp": (128, 100, 0.0),
    "mnist_2c2d": (128, 100, 0.0),
    "mnist_vae": (64, 50, 0.0),
    "fmnist_logreg": (128, 50, 0.0),
    "fmnist_mlp": (128, 100, 0.0),
    "fmnist_2c2d": (128, 100, 0.0),
    "fmnist_vae": (64, 100, 0.0),
    "cifar10_3c3d": (128, 100, 0.002),
    "cifar10_vgg16": (None, None, 5e-4),
    "cifar10_vgg19": (None, None, 5e-4),
    "cifar100_3c3d": (None, None, 0.002),
    "cifar100_allcnnc": (256, 350, 5e-4),
    "cifar100_vgg16": (None, None, 5e-4),
    "cifar100_vgg19": (None, None, 5e-4),
    "cifar100_wrn164": (128, 160, 5e-4),
    "cifar100_wrn404": (128, 160, 5e-4),
    "svhn_3c3d": (128, 100, 0.002),
    "svhn_wrn164": (128, 160, 5e-4),
    "quadratic_deep": (128, 100, 0.0),
    "tolstoi_char_rnn": (50, 200, 0.0),
    "imagenet_vgg16": (None, None, 5e-4),
    "imagenet_vgg19": (None, None, 5e-4),
    "imagenet_inception_v3": (None, None, 5e-4),
    "cifar10_roos_glorot": (32, 250, 0.01),
    "cifar10_roos_uniform": (32, 250, 0.01),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_setting_is_the_published_one(name: str) -> None:
    problem, (batch_size, epochs, l2) = problems.get(name), PUBLISHED[name]
    assert batch_size in (None, problem.batch_size)
    assert epochs in (None, problem.epochs)
    with torch.device("meta"):
        model = problem.make_model()
    coefficient = {
        id(p): group.get("l2", 0.0)
        for group in problem.param_groups(model)
        for p in group["params"]
    }
    for parameter_name, parameter in model.named_parameters():
        regularized = l2 > 0 and parameter.ndim > 1
        assert coefficient[id(parameter)] == (l2 if regularized else 0.0), parameter_name


def test_regularization_is_half_the_coefficient_times_the_square() -> None:
    problem = problems.get("cifar10_3c3d")
    model = problem.make_model()
    weights = [p for n, p in model.named_parameters() if n.endswith("weight")]
    expected = 0.5 * 0.002 * sum(p.detach().double().square().sum().item() for p in weights)
    penalty = regularization(problem.param_groups(model))
    assert penalty is not None
    assert penalty.item() == pytest.approx(expected, rel=1e-5)


def test_groups_differ_by_layer() -> None:
    problem = problems.get("digits_conv_groups")
    model = problem.make_model()
    names = {id(p): n for n, p in model.named_parameters()}
    groups = {
        g["name"]: ([names[id(p)] for p in g["params"]], g.get("l2"), g.get("lr_scale"))
        for g in problem.param_groups(model)
    }
    assert groups == {
        "kernels": (["0.weight", "3.weight"], 5e-4, None),
        "hidden": (["7.weight"], 4e-3, None),
        "output": (["9.weight"], 2e-3, 0.5),
        "biases": (["0.bias", "3.bias", "7.bias", "9.bias"], None, 2.0),
    }


# Problem, framework's word, optimizer -> rate, final test value, standard deviation.
BASELINES = [
    ("mnist_logreg", "PyTorch", "sgd", 0.1129, 0.9242, 0.0006),
    ("mnist_logreg", "PyTorch", "adam", 0.0002976, 0.9268, 0.0007),
    ("fmnist_2c2d", "PyTorch", "momentum", 0.02069, 0.9226, 0.0020),
    ("fmnist_2c2d", "TensorFlow", "adam", 0.0002512, 0.9234, 0.0029),
    ("cifar10_3c3d", "PyTorch", "sgd", 0.04833, 0.8210, 0.0116),
    ("cifar10_3c3d", "TensorFlow", "momentum", 0.0003981, 0.8441, 0.0064),
    ("cifar100_allcnnc", "PyTorch", "nesterov", 0.04833, 0.6114, 0.0047),
    ("svhn_wrn164", "PyTorch", "adam", 5.456e-05, 0.9496, 0.0025),
    ("mnist_vae", "TensorFlow", "adam", 0.0001585, 27.831, 0.095),
    ("tolstoi_char_rnn", "TensorFlow", "sgd", 1.585, 0.6207, 0.0029),
    ("quadratic_deep", "TensorFlow", "momentum", 0.002512, 87.045, 0.025),
]


@pytest.mark.parametrize(("name", "framework", "optimizer", "rate", "mean", "std"), BASELINES)
def test_baselines(
    name: str, framework: str, optimizer: str, rate: float, mean: float, std: float
) -> None:
    problem = problems.get(name)
    (found,) = (
        b for b in problem.baselines if b.optimizer == optimizer and f", {framework} (" in b.source
    )
    assert found.hyperparameters["lr"] == pytest.approx(rate, rel=1e-3)
    assert found.mean == pytest.approx(mean, abs=5e-4 if mean > 1 else 5e-5)
    assert found.std == pytest.approx(std, abs=5e-4 if mean > 1 else 5e-5)
    assert (found.seeds, found.epochs) == (10, problem.epochs)
    assert found.metric == ("test_accuracy" if problem.metric else "test_loss")
