"""The loop gives the weights of a bare PyTorch loop, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_problems import Watched, train
from torch import Tensor, nn

from optiscope import problems
from optiscope.problems import Problem

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def bare_loop(
    problem: Problem, make: Make, seed: int, epochs: int
) -> tuple[nn.Module, list[float]]:
    """What anyone would write, with the seeds of the loop; mean batch loss of each epoch."""
    words = np.random.SeedSequence(seed).generate_state(4, np.uint64)
    torch.manual_seed(int(words[0]) >> 1)
    model = problem.make_model()
    torch.manual_seed(int(words[1]) >> 1)
    order = torch.Generator().manual_seed(int(words[2]) >> 1)
    optimizer = make(list(model.parameters()))
    inputs, targets = problem.data(None).train.select(torch.arange(len(problem.data(None).train)))
    steps = len(inputs) // problem.batch_size
    means = []
    for _ in range(epochs):
        permutation = torch.randperm(len(inputs), generator=order)
        losses = []
        for i in range(steps):
            batch = permutation[i * problem.batch_size : (i + 1) * problem.batch_size]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[batch]), targets[batch], reduction="none").mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / steps)
    return model, means


@pytest.mark.parametrize(
    ("name", "optimizer", "hyperparameters", "make"),
    [
        ("digits_mlp", "sgd", {"lr": 0.1}, lambda p: torch.optim.SGD(p, 0.1)),
        (
            "digits_mlp",
            "nesterov",
            {"lr": 0.02},
            lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, nesterov=True),
        ),
        ("digits_logreg", "adam", {"lr": 0.01}, lambda p: torch.optim.Adam(p, 0.01)),
    ],
    ids=["sgd", "nesterov", "adam"],
)
def test_weights_are_those_of_a_bare_loop(
    name: str, optimizer: str, hyperparameters: dict[str, Any], make: Make
) -> None:
    watched = Watched(problems.get(name))
    run = train(watched.problem, optimizer, hyperparameters, epochs=2, seed=7)
    model, means = bare_loop(problems.get(name), make, seed=7, epochs=2)
    expected: list[Tensor] = [p.detach() for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters, expected, strict=True))
    assert run.curve("batch", "loss")[1] == means

    inputs, targets = problems.get(name).data(None).test.select(torch.arange(300))
    with torch.no_grad():
        outputs = model(inputs)
    assert run.final["test_loss"] == pytest.approx(
        F.cross_entropy(outputs.double(), targets).item(), rel=1e-6
    )
    assert run.final["test_accuracy"] == (outputs.argmax(1) == targets).double().mean().item()
