"""Evaluation sets are used whole, in evaluation mode, and without a trace."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from small_problems import Linear, small, small_splits, train
from torch import Tensor, nn

from optiscope.data.samples import Samples, TensorSamples, TextWindows
from optiscope.problems import Metric
from optiscope.problems.losses import ACCURACY, TOKEN_ACCURACY, token_cross_entropy
from optiscope.train.evaluation import check_watched, evaluate, validation_figures

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2500])
def test_every_sample_counts_once(count: int) -> None:
    inputs = torch.randn(count, 4)
    targets = torch.randint(3, (count,))
    model = Linear()
    found = evaluate(small, model, TensorSamples(inputs, targets), CPU)
    outputs = model(inputs).detach().double()
    assert found["loss"] == pytest.approx(nn.functional.cross_entropy(outputs, targets).item())
    assert found["accuracy"] == (outputs.argmax(1) == targets).double().mean().item()


def test_text_is_evaluated_whole() -> None:
    tokens = torch.randint(5, (11 * 1003 + 1,))
    windows = TextWindows(tokens, torch.arange(1003) * 11, length=11)
    problem = dataclasses.replace(small, loss=token_cross_entropy, metric=TOKEN_ACCURACY)
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5))
    found = evaluate(problem, model, windows, CPU)
    outputs = model(tokens[:-1]).detach().double()
    assert found["loss"] == pytest.approx(nn.functional.cross_entropy(outputs, tokens[1:]).item())
    hits = (outputs.argmax(1) == tokens[1:]).double().mean().item()
    assert found["accuracy"] == pytest.approx(hits)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_evaluated_in_evaluation_mode_and_left_as_it_was(training: bool) -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), Linear(0.9))
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    samples: Samples = small_splits(None).valid
    assert evaluate(small, model, samples, CPU) == evaluate(small, model, samples, CPU)
    assert model.training is training
    assert model[1].drop.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_modules_kept_in_evaluation_mode_stay_there() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4).eval(), Linear(0.9))
    evaluate(small, model, small_splits(None).valid, CPU)
    assert model.training
    assert not model[0].training
    assert model[1].drop.training


def test_a_model_that_writes_into_its_input_does_not_change_the_data() -> None:
    class Shifting(Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs.sub_(3.0))

    problem = dataclasses.replace(small, make_model=Shifting)
    assert train(problem).metrics == train(problem).metrics


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("loss", {"loss": lambda outputs, targets: outputs.square().flatten()[:5]}),
        ("accuracy", {"metric": Metric("accuracy", lambda o, t: (o.argmax(1) == t).sum(), True)}),
    ],
)
def test_a_loss_or_metric_that_is_not_per_sample_is_refused(
    what: str, changed: dict[str, Any]
) -> None:
    words = rf"the {what} of small must be one value per sample, shape \(13,\), got "
    with pytest.raises(ValueError, match=words + r".*(reduction='none'|samples' dimension)"):
        evaluate(
            dataclasses.replace(small, **changed), Linear(), small_splits(None).train_eval, CPU
        )


def test_a_metric_may_not_take_the_name_of_the_loss() -> None:
    with pytest.raises(ValueError, match="a name of its own, got 'loss'"):
        Metric("loss", ACCURACY.compute, False)


def test_a_run_measures_every_set_before_training_and_after_each_epoch() -> None:
    run = train(dataclasses.replace(small, make_model=partial(Linear, 0.5)))
    for split in ("train", "valid", "test"):
        for name in ("loss", "accuracy"):
            assert run.curve(split, name)[0] == [0, 1, 2, 3]


def test_a_problem_without_metric_has_losses_only() -> None:
    run = train(dataclasses.replace(small, metric=None))
    assert set(run.final) == {"train_loss", "valid_loss", "test_loss", "batch_loss", "optimizer_lr"}


def test_only_what_is_measured_may_be_watched() -> None:
    assert validation_figures(small) == ["valid_loss", "valid_accuracy"]
    check_watched({"metric": "valid_accuracy"}, {"metric": "valid_loss"}, small)
    with pytest.raises(ValueError, match=r"'valid_acuracy'.*did you mean 'valid_accuracy'"):
        check_watched({"metric": "valid_acuracy"}, None, small)
    with pytest.raises(ValueError, match=r"the schedule watches 'test_loss'"):
        check_watched(None, {"name": "ReduceLROnPlateau", "metric": "test_loss"}, small)
