"""However a run ends, it says so at its step and keeps what it measured."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import pytest
import torch
from small_problems import STEPS, TRAIN, Linear, failing_at, small, small_splits, train
from torch import Tensor

import optiscope
from optiscope.data.errors import MissingData
from optiscope.data.samples import Splits
from optiscope.optim import registry
from optiscope.optim.spec import OptimizerSpec
from optiscope.problems import Problem
from optiscope.records import Measurement, Run, Status, Trial, summarise
from optiscope.study.single import RunInterrupted
from optiscope.train import TrialError, run_trial
from optiscope.train.stopping import EarlyStopping


def check_kept(run: Run, epochs: int) -> None:
    """Measurements of the whole epochs before the end, in order."""
    for split in ("train", "valid", "test"):
        assert run.curve(split, "loss")[0] == list(range(epochs + 1))
    assert all(a.step <= b.step for a, b in zip(run.metrics, run.metrics[1:], strict=False))
    assert run.metrics[-1].step <= run.steps
    assert "\n" not in run.reason


def test_finished() -> None:
    run = train(small)
    assert run.status is Status.FINISHED
    assert run.reason == "reached its horizon of 3 epochs"
    assert run.steps == 3 * STEPS
    assert run.counts == {"gradient_evaluations": 3 * STEPS, "hessian_products": 0}
    check_kept(run, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("step", [1, STEPS, STEPS + 3])
def test_diverged_in_training(step: int, value: float) -> None:
    run = train(failing_at(small, step, lambda losses: losses * value))
    assert run.status is Status.DIVERGED
    assert run.steps == step
    assert run.reason == f"the loss of a training batch became {value} at step {step}"
    check_kept(run, (step - 1) // STEPS)
    epochs, losses = run.curve("batch", "loss")
    assert epochs[-1] == pytest.approx(step / STEPS)
    assert repr(losses[-1]) == repr(value)
    assert run.counts["gradient_evaluations"] == step


def test_diverged_by_its_rate_is_never_filled_in() -> None:
    quadratic = dataclasses.replace(small, loss=lambda outputs, _: outputs.square().sum(1))
    run = train(quadratic, "sgd", {"lr": 1e10})
    assert run.status is Status.DIVERGED
    assert 1 < run.steps < STEPS
    check_kept(run, 0)


def test_diverged_in_evaluation() -> None:
    calls = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        losses = small.loss(outputs, targets)
        calls += not outputs.requires_grad
        return losses * math.nan if calls == 5 and not outputs.requires_grad else losses

    # An evaluation is four batches (the validation set has two): the fifth is the first of the
    # second evaluation.
    run = train(dataclasses.replace(small, loss=loss))
    assert run.status is Status.DIVERGED
    assert run.reason == f"the train loss became nan at step {STEPS}"
    assert run.steps == STEPS
    assert run.curve("test", "loss")[0] == [0, 1]


def fail(_: Tensor) -> Tensor:
    raise RuntimeError("matrix is\nsingular")


def interrupt(_: Tensor) -> Tensor:
    raise KeyboardInterrupt


def test_crashed() -> None:
    run = train(failing_at(small, STEPS + 2, fail))
    assert run.status is Status.CRASHED
    assert run.steps == STEPS + 1
    assert run.reason.startswith(f"at step {STEPS + 1}: RuntimeError: matrix is singular (")
    check_kept(run, 1)


def test_an_error_that_follows_from_overflowed_weights_is_divergence() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.abs().max() > 1e6:
            raise RuntimeError("all elements of input should be between 0 and 1")
        return small.loss(outputs, targets)

    careful = dataclasses.replace(small, loss=loss)
    run = train(careful, "sgd", {"lr": 1e30})
    assert run.status is Status.DIVERGED
    assert run.reason.startswith("at step 1: RuntimeError: all elements of input should be between")
    assert train(careful, "sgd", {"lr": 1e8}).status is Status.CRASHED  # large, yet finite


def test_gradients_that_are_never_finite_are_divergence() -> None:
    """The loss is finite: √|x| at zero has no gradient; Lark leaves such steps out."""
    rough = dataclasses.replace(small, loss=lambda o, _: (o * 0).sum(1).abs().sqrt())
    with pytest.warns(RuntimeWarning, match="got inf or nan"):
        run = train(rough, "lark", {})
    assert run.status is Status.DIVERGED
    assert "10 batches in a row gave non-finite gradients" in run.reason


def test_data_that_cannot_be_hashed() -> None:
    @dataclasses.dataclass
    class Data:
        def __call__(self, _: Any) -> Splits:
            return small_splits(None)

    assert train(dataclasses.replace(small, data=Data())).final == train(small).final


def test_interrupted() -> None:
    run = train(failing_at(small, 2 * STEPS + 4, interrupt))
    assert run.status is Status.INTERRUPTED
    assert run.reason == f"interrupted at step {2 * STEPS + 3}"
    check_kept(run, 2)


def test_timed_out_within_an_epoch() -> None:
    run = train(small, max_seconds=1e-9)
    assert run.status is Status.TIMED_OUT
    assert run.steps == 1
    assert run.reason.endswith("of at most 1e-09 s at step 1")
    check_kept(run, 0)


def test_time_enough_changes_nothing() -> None:
    assert train(small, max_seconds=1e9).final == train(small).final


def test_stopped_when_validation_no_longer_improves() -> None:
    rule = {"metric": "valid_loss", "patience": 2}
    run = train(small, "sgd", {"lr": 0.0}, epochs=10, early_stopping=rule)
    assert run.status is Status.STOPPED
    assert run.status.complete
    assert run.steps == 3 * STEPS  # the first evaluation is the best, two more do not improve
    assert run.reason == f"valid_loss has not improved for 2 evaluations at step {3 * STEPS}"
    check_kept(run, 3)


def test_the_last_epoch_is_the_horizon_even_where_patience_ends() -> None:
    rule = {"metric": "valid_loss", "patience": 2}
    run = train(small, "sgd", {"lr": 0.0}, epochs=3, early_stopping=rule)
    assert run.status is Status.FINISHED


@pytest.mark.parametrize(
    ("rule", "values", "stops_at"),
    [
        ({"metric": "valid_loss", "patience": 1}, [3.0, 2.0, 1.0, 1.0], 3),
        ({"metric": "valid_loss", "patience": 1, "min_delta": 0.5}, [3.0, 2.0, 1.6], 2),
        ({"metric": "valid_loss", "patience": 2}, [1.0, 2.0, 0.9, 2.0, 2.0], 4),
        ({"metric": "valid_accuracy", "patience": 1}, [0.1, 0.2, 0.3, 0.2], 3),
        ({"metric": "valid_loss", "patience": 3}, [1.0, 2.0, 2.0], None),
    ],
)
def test_early_stopping(rule: dict[str, object], values: list[float], stops_at: int | None) -> None:
    stopping = EarlyStopping.of(rule)
    assert stopping is not None
    reasons = [stopping.update({str(rule["metric"]): value}) for value in values]
    assert [i for i, r in enumerate(reasons) if r] == ([] if stops_at is None else [stops_at])


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"metric": "test_loss"}, "validation split"),
        ({"patience": 0}, "positive integer"),
        ({"patience": 1.5}, "positive integer"),
        ({"patience": True}, "positive integer"),
        ({"min_delta": -1.0}, "at least 0"),
        ({"min_delta": math.inf}, "at least 0"),
        ({"patients": 3}, "takes 'metric', 'patience' and 'min_delta', got patients"),
    ],
)
def test_early_stopping_refuses(rule: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EarlyStopping.of(rule)


def test_a_batch_larger_than_the_data_cannot_begin() -> None:
    assert train(small, batch_size=TRAIN).steps == 3
    with pytest.raises(TrialError, match=f"at most the {TRAIN} training samples of small, got 71"):
        train(small, batch_size=TRAIN + 1)


def broken_model() -> Linear:
    raise RuntimeError("no such\nlayer")


@pytest.mark.parametrize(
    ("changes", "fields", "words"),
    [
        ({"make_model": broken_model}, {}, r"RuntimeError: no such layer \(test_outcomes.py:"),
        ({"param_groups": lambda model: []}, {}, "empty parameter list"),
        ({}, {"schedule": {"name": "StepLR"}}, "step_size"),
        ({}, {"schedule": {"name": "ReduceLROnPlateau", "metric": "valid_lss"}}, "'valid_loss'"),
        ({}, {"early_stopping": {"metric": "valid_speed"}}, "valid_speed"),
        ({}, {"clip": {"norm": -1.0}}, "one positive"),
        ({}, {"device": "cuda"}, "cuda"),
    ],
    ids=["model", "groups", "schedule", "plateau", "stopping", "clip", "device"],
)
def test_what_cannot_begin_is_one_line(
    changes: dict[str, object], fields: dict[str, object], words: str
) -> None:
    if fields.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    problem: Problem = dataclasses.replace(small, **changes)  # type: ignore[arg-type]
    with pytest.raises(TrialError, match=words) as caught:
        train(problem, **fields)
    assert "\n" not in str(caught.value)


def test_missing_data_is_not_a_run() -> None:
    def absent(_: object) -> object:
        raise MissingData("not here")

    with pytest.raises(MissingData):
        train(dataclasses.replace(small, data=absent))  # type: ignore[arg-type]


def test_progress_is_told_after_each_evaluation() -> None:
    told: list[tuple[float, bool]] = []
    bound = registry.bind("sgd", {"lr": 0.1})
    trial = Trial("small", 1, "sgd", {"lr": 0.1}, 0, 2, 8)
    run_trial(
        trial, small, bound, progress=lambda share, seen: told.append((share, "valid_loss" in seen))
    )
    assert told == [(0.0, True), (0.5, True), (1.0, True)]


def test_the_callers_callback_is_the_callers() -> None:
    def broken(share: float, latest: Any) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        optiscope.run(
            "digits_logreg", "sgd", hyperparameters={"lr": 0.1}, epochs=1, progress=broken
        )

    def slow(share: float, latest: Any) -> None:
        time.sleep(0.3)

    began = time.perf_counter()
    run = optiscope.run(
        "digits_logreg", "sgd", hyperparameters={"lr": 0.1}, epochs=1, progress=slow
    )
    assert run.seconds["instruments"].wall >= 0.6  # the caller's, and no part of training
    assert run.training_seconds.wall <= time.perf_counter() - began - 0.6


def test_ctrl_c_ends_a_loop_over_runs_and_brings_what_was_measured() -> None:
    def interrupt(share: float, latest: Any) -> None:
        if share == 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        optiscope.run(
            "digits_logreg", "sgd", hyperparameters={"lr": 0.1}, epochs=2, progress=interrupt
        )
    assert isinstance(caught.value, RunInterrupted)
    assert caught.value.run.status is Status.INTERRUPTED
    assert "valid_loss" in caught.value.run.final


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"schedule": "linear_decay"}, "schedule must be a table such as"),
        ({"clip": 1.0}, "clip must be a table such as"),
        ({"device": "gpu"}, "device must be 'cpu', 'cuda', 'cuda:1', 'xpu' or 'mps', got 'gpu'"),
        ({"threads": 0}, "threads must be a positive integer, got 0"),
        ({"epochs": 2.5}, "epochs must be a positive integer, got 2.5"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_arguments_of_the_wrong_kind_are_one_line(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        optiscope.run("digits_logreg", "sgd", hyperparameters={"lr": 0.1}, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["loss", "logloss", "nll_loss"])
def test_what_ends_in_loss_falls(name: str) -> None:
    rows = [Measurement(e, float(e), "valid", name, v) for e, v in enumerate((3.0, 1.0, 2.0))]
    assert summarise(rows)[1] == {f"valid_{name}": 1.0}
    stopping = EarlyStopping(f"valid_{name}", patience=1)
    assert stopping.update({f"valid_{name}": 3.0}) is None
    assert stopping.update({f"valid_{name}": 1.0}) is None
    assert stopping.update({f"valid_{name}": 2.0}) is not None


def test_what_a_record_depends_on_is_in_its_hash() -> None:
    runs = [
        optiscope.run(
            "digits_logreg", OptimizerSpec("mine", torch.optim.SGD, {"lr": rate}), epochs=1
        )
        for rate in (0.1, 0.5)
    ]
    assert [run.trial.hyperparameters for run in runs] == [{"lr": 0.1}, {"lr": 0.5}]
    assert runs[0].trial.hash != runs[1].trial.hash
