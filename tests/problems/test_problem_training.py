"""Every problem learns: a few steps on a few samples lower their loss, L2 and groups included."""

from __future__ import annotations

import pytest
import torch

from optiscope import problems
from optiscope.problems import Problem
from optiscope.problems.problem import regularization

RATES = {
    "cifar10_vgg16": 1e-4,
    "cifar10_vgg19": 1e-4,
    "cifar10_wrn404": 1e-4,
    "textbook_adding": 1e-3,
}
SMALL = {"cifar10_vgg16": 2, "cifar10_vgg19": 2, "cifar10_wrn404": 4, "cifar10_wrn164": 4}


def losses_while_training(problem: Problem, data_dir: object, steps: int) -> list[float]:
    """Loss of one augmented batch before and after ``steps`` of Adam on it."""
    splits = problem.data(data_dir)
    torch.manual_seed(0)
    model = problem.make_model().train()
    groups = problem.param_groups(model)
    rate = RATES.get(problem.name, 3e-3)
    optimizer = torch.optim.Adam(
        [{"params": g["params"], "lr": rate * g.get("lr_scale", 1.0)} for g in groups]
    )
    batch = splits.train.select(torch.arange(SMALL.get(problem.name, 16)))
    inputs, targets = batch
    if splits.augment is not None:
        inputs = splits.augment(inputs, torch.Generator().manual_seed(0))
    losses = []
    for _ in range(steps + 1):
        torch.manual_seed(1)  # the same dropout in every step, so that losses compare
        optimizer.zero_grad()
        loss = problem.loss(model(inputs), targets).mean()
        penalty = regularization(groups)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def named(*datasets: str) -> list[str]:
    return [entry.name for entry in problems.entries() if entry.dataset in datasets]


@pytest.mark.parametrize("name", named("digits", "synthetic"))
def test_shipped_problems_learn(name: str) -> None:
    losses = losses_while_training(problems.get(name), None, steps=10)
    assert min(losses) == losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", named("mnist", "fashion_mnist", "cifar10", "tolstoi"))
def test_problems_at_hand_learn(name: str, real_data: object) -> None:
    losses = losses_while_training(problems.get(name), real_data, steps=2 if "vgg" in name else 5)
    assert min(losses[1:]) < losses[0]
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", named("digits"))
def test_digits_problems_are_solved_in_their_horizon(name: str) -> None:
    """Adam at 3e-3 for the problem's own epochs: test accuracy above 0.85."""
    problem = problems.get(name)
    splits = problem.data(None)
    torch.manual_seed(0)
    model = problem.make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    test = splits.test.select(torch.arange(len(splits.test)))
    with torch.no_grad():
        before = problem.loss(model.eval()(test.inputs), test.targets).mean().item()
    model.train()
    for _ in range(problem.epochs):
        for indices in torch.randperm(len(splits.train)).split(problem.batch_size):
            batch = splits.train.select(indices)
            optimizer.zero_grad()
            problem.loss(model(batch.inputs), batch.targets).mean().backward()
            optimizer.step()
    with torch.no_grad():
        outputs = model.eval()(test.inputs)
        after = problem.loss(outputs, test.targets).mean().item()
    assert after < 0.5 * before
    if problem.metric is not None:
        accuracy = problem.metric.compute(outputs, test.targets).mean().item()
        assert accuracy > 0.85
