"""What one step does: regularization, clipping, closures, rates of parameter groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import pytest
import torch
from small_problems import STEPS, Linear, Watched, small, small_splits, train
from torch import Tensor, nn

from optiscope import problems
from optiscope.data.samples import Batch
from optiscope.problems import l2_on_weights
from optiscope.problems.parameter_groups import per_layer_groups
from optiscope.train import TrialError
from optiscope.train.step import check_clip

L2 = 0.5
regularized = dataclasses.replace(small, param_groups=l2_on_weights(L2))


class Recorder(torch.optim.SGD):
    """SGD that remembers the gradients of each step, in the order of the groups."""

    gradients: ClassVar[list[list[Tensor]]] = []

    def step(self, closure: Any = None) -> Any:
        found = [p.grad.clone() for g in self.param_groups for p in g["params"]]
        self.gradients.append(found)
        return super().step(closure)


@pytest.fixture(autouse=True)
def _nothing_recorded() -> None:
    Recorder.gradients.clear()


def first_batch(watched: Watched) -> Batch:
    return small_splits(None).train.select(torch.tensor(watched.batches[0]))


def test_the_gradient_has_the_regularization_and_the_reported_loss_has_not() -> None:
    watched = Watched(regularized)
    run = train(watched.problem, Recorder, {"lr": 0.0}, epochs=1)
    weight, bias = (p.clone().requires_grad_() for p in watched.initial[0])
    batch = first_batch(watched)
    loss = nn.functional.cross_entropy(batch.inputs[:, 1:] @ weight.T + bias, batch.targets)
    (loss + 0.5 * L2 * weight.square().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert torch.allclose(Recorder.gradients[0][0], weight.grad, atol=1e-6)
    assert torch.allclose(Recorder.gradients[0][1], bias.grad, atol=1e-6)
    plain = train(small, "sgd", {"lr": 0.0}, epochs=1)
    shared = {key for key in plain.final if not key.startswith("optimizer")}
    assert {k: run.final[k] for k in shared} == {k: plain.final[k] for k in shared}


def test_the_gradient_is_cleared_before_each_step() -> None:
    train(small, Recorder, {"lr": 0.0}, epochs=2)
    watched = Watched(small)
    train(watched.problem, "sgd", {"lr": 0.0}, epochs=2)
    for gradients, numbers in zip(Recorder.gradients, watched.batches, strict=True):
        batch = small_splits(None).train.select(torch.tensor(numbers))
        model = Linear()
        with torch.no_grad():
            for p, value in zip(model.parameters(), watched.initial[0], strict=True):
                p.copy_(value)
        small.loss(model(batch.inputs), batch.targets).mean().backward()
        for p, found in zip(model.parameters(), gradients, strict=True):
            assert torch.allclose(p.grad, found, atol=1e-6)


def norm(gradients: Iterable[Tensor]) -> float:
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def test_clipping_by_norm_scales_the_whole_gradient() -> None:
    train(small, Recorder, {"lr": 0.0}, epochs=1)
    train(small, Recorder, {"lr": 0.0}, epochs=1, clip={"norm": 0.2})
    for free, clipped in zip(Recorder.gradients[:STEPS], Recorder.gradients[STEPS:], strict=True):
        assert norm(free) > 0.2
        assert norm(clipped) == pytest.approx(0.2, rel=1e-4)
        for a, b in zip(free, clipped, strict=True):
            assert torch.allclose(a * 0.2 / norm(free), b, atol=1e-6)


def test_clipping_by_value_cuts_each_entry() -> None:
    train(small, Recorder, {"lr": 0.0}, epochs=1)
    train(small, Recorder, {"lr": 0.0}, epochs=1, clip={"value": 0.05})
    for free, clipped in zip(Recorder.gradients[:STEPS], Recorder.gradients[STEPS:], strict=True):
        for a, b in zip(free, clipped, strict=True):
            assert torch.equal(a.clamp(-0.05, 0.05), b)


@pytest.mark.parametrize(
    "clip", [{}, {"norm": 0.0}, {"norm": float("inf")}, {"size": 1.0}, {"norm": 1.0, "value": 1.0}]
)
def test_clipping_that_cannot_be_is_refused(clip: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one positive 'norm' or 'value'"):
        check_clip(clip)


def test_lbfgs_gets_a_closure_and_its_evaluations_are_counted() -> None:
    watched = Watched(small)
    settings = {"lr": 0.5, "max_iter": 4}
    run = train(watched.problem, "torch.optim:LBFGS", settings, epochs=1)
    assert run.steps == STEPS
    assert STEPS < run.counts["gradient_evaluations"] == len(watched.batches) <= 5 * STEPS

    model = Linear()
    with torch.no_grad():
        for p, value in zip(model.parameters(), watched.initial[0], strict=True):
            p.copy_(value)
    optimizer = torch.optim.LBFGS(model.parameters(), **settings)
    losses, last = [], None
    for numbers in watched.batches:
        if numbers == last:
            continue
        last = numbers
        batch = small_splits(None).train.select(torch.tensor(numbers))

        def closure(batch: Batch = batch) -> Tensor:
            optimizer.zero_grad()
            loss = small.loss(model(batch.inputs), batch.targets).mean()
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
    assert all(map(torch.equal, watched.parameters, model.parameters()))
    assert run.final["batch_loss"] == pytest.approx(sum(losses) / STEPS, rel=1e-6)


class Modes(torch.optim.SGD):
    """SGD with the two modes of schedule-free methods; evaluation looks at other weights."""

    calls: ClassVar[list[str]] = []
    evaluating = False

    def train(self) -> None:
        self.calls.append("train")
        self.param_groups[0]["params"][1].data.sub_(100.0 * self.evaluating)
        self.evaluating = False

    def eval(self) -> None:
        self.calls.append("eval")
        self.param_groups[0]["params"][1].data.add_(100.0 * (not self.evaluating))
        self.evaluating = True

    def step(self, closure: Any = None) -> Any:
        self.calls.append("step")
        return super().step(closure)


def test_train_and_eval_of_an_optimizer_are_called_around_evaluation() -> None:
    Modes.calls.clear()
    biases: list[float] = []

    class Watching(Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            if not self.training:
                biases.append(float(self.layer.bias[0]))
            return super().forward(inputs)

    problem = dataclasses.replace(small, make_model=Watching)
    run = train(problem, Modes, {"lr": 0.01}, epochs=2)
    assert run.status.complete
    around = ["eval", "train"]
    assert Modes.calls == ["train", *around, *(2 * (STEPS * ["step"] + around))]
    assert min(biases) > 90.0


def test_schedule_free_is_evaluated_at_its_average() -> None:
    schedulefree = pytest.importorskip("schedulefree")
    watched = Watched(small)
    run = train(watched.problem, "schedulefree_sgd", {"lr": 1.0}, epochs=2)
    model = Linear()
    with torch.no_grad():
        for p, value in zip(model.parameters(), watched.initial[0], strict=True):
            p.copy_(value)
    optimizer = schedulefree.SGDScheduleFree(model.parameters(), lr=1.0)
    optimizer.train()
    for numbers in watched.batches:
        batch = small_splits(None).train.select(torch.tensor(numbers))
        optimizer.zero_grad()
        small.loss(model(batch.inputs), batch.targets).mean().backward()
        optimizer.step()
    optimizer.eval()
    samples = small_splits(None).test
    batch = samples.select(torch.arange(len(samples)))
    expected = small.loss(model(batch.inputs), batch.targets).mean().item()
    assert run.final["test_loss"] == pytest.approx(expected, rel=1e-4)


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.third = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.third(self.second(self.first(inputs[:, 1:])))
        return outputs


def scaled_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Out of the order in which any optimizer would regroup them."""
    assert isinstance(model, TwoLayers)
    return [
        {"params": [model.third.bias, model.first.weight], "lr_scale": 3.0, "name": "mixed"},
        {"params": [model.first.bias, model.third.weight]},
        {"params": [*model.second.parameters()], "lr_scale": 0.0},
    ]


grouped = dataclasses.replace(small, make_model=TwoLayers, param_groups=scaled_groups)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon", "adafactor"])
def test_rates_are_scaled_by_what_each_parameter_declares(optimizer: str) -> None:
    watched = Watched(grouped)
    train(watched.problem, optimizer, {"lr": 0.01}, epochs=1)
    moved = [
        not torch.equal(a, b) for a, b in zip(watched.initial[0], watched.parameters, strict=True)
    ]
    assert moved == [True, True, False, False, True, True]


def test_a_scaled_step_is_that_many_plain_steps() -> None:
    one_step = {"epochs": 1, "batch_size": 70}
    plain, scaled = (
        Watched(dataclasses.replace(grouped, param_groups=groups))
        for groups in (lambda m: [{"params": list(m.parameters())}], scaled_groups)
    )
    for watched in (plain, scaled):
        train(watched.problem, "sgd", {"lr": 0.01}, **one_step)
    for i, scale in enumerate((3.0, 1.0, 0.0, 0.0, 1.0, 3.0)):
        step = plain.parameters[i] - plain.initial[0][i]
        assert torch.allclose(scaled.parameters[i] - scaled.initial[0][i], scale * step, atol=1e-6)


class OneGroup(torch.optim.SGD):
    """An optimizer that joins all its groups, as some do."""

    def __init__(self, params: list[Any], lr: float = 0.1) -> None:
        groups = [g["params"] if isinstance(g, dict) else [g] for g in params]
        super().__init__([p for group in groups for p in group], lr)


def test_an_optimizer_that_joins_groups_of_different_rates_is_refused() -> None:
    with pytest.raises(TrialError, match="OneGroup"):
        train(grouped, OneGroup, {"lr": 0.1})


def test_a_schedule_acts_on_scaled_rates() -> None:
    run = train(grouped, "sgd", {"lr": 0.1}, schedule={"name": "linear_decay", "final": 0.5})
    assert run.curve("optimizer", "lr_mixed")[1] == pytest.approx([0.3, 0.25, 0.2, 0.15])
    assert run.curve("optimizer", "lr_1")[1] == pytest.approx([0.1, 0.25 / 3, 0.2 / 3, 0.05])


def test_groups_of_a_shipped_problem_train_with_every_regrouping() -> None:
    digits = problems.get("digits_conv_groups")
    assert digits.param_groups is per_layer_groups
    run = train(digits, "muon", {"lr": 0.01}, epochs=1, batch_size=300)
    assert run.status.complete
    scales = {m.name: m.value / 0.01 for m in run.metrics if m.split == "optimizer"}
    assert scales == pytest.approx(
        {"lr_kernels": 1.0, "lr_hidden": 1.0, "lr_output": 0.5, "lr_biases": 2.0}
    )


def test_the_l2_term_is_measured_on_its_own() -> None:
    models: list[nn.Module] = []

    def remembered() -> nn.Module:
        models.append(small.make_model())
        return models[-1]

    problem = dataclasses.replace(small, make_model=remembered, param_groups=l2_on_weights(L2))
    run = train(problem)
    weights = [p.detach() for p in models[-1].parameters() if p.ndim > 1]
    epochs, values = run.curve("penalty", "loss")
    assert epochs == run.curve("test", "loss")[0]
    assert values[-1] == pytest.approx(0.5 * L2 * sum(float(w.square().sum()) for w in weights))
    assert run.final["penalty_loss"] == values[-1]
    assert train(small).curve("penalty", "loss") == ([], [])
