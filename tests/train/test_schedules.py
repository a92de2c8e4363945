"""Schedules are declared values; each of torch's can be named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_problems import STEPS, small, train

from optiscope.records import Status
from optiscope.train.schedule import check_schedule, make_schedule, schedule_names

# Arguments with which each scheduler of torch can be built; the rest are built without any.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "CosineAnnealingLR": {"T_max": "horizon"},
    "CosineAnnealingWarmRestarts": {"T_0": 5},
    "CyclicLR": {"max_lr": 0.1, "cycle_momentum": False},
    "ExponentialLR": {"gamma": 0.9},
    "MultiStepLR": {"milestones": [3, 6]},
    "OneCycleLR": {"total_steps": "horizon"},
    "StepLR": {"step_size": 3},
    "SWALR": {"swa_lr": 0.01},
}
NEED_A_FUNCTION = {"LambdaLR", "MultiplicativeLR"}


def sgd(lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)


def rates_of(declared: dict[str, Any], lr: float, steps: int) -> list[float]:
    """The learning rate that each step of a horizon is taken with."""
    optimizer = sgd(lr)
    schedule = make_schedule(declared, optimizer, steps=steps, epochs=2)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps - 1):
        optimizer.step()
        schedule.scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_linear_decay_is_its_formula() -> None:
    optimizer = sgd(0.4)
    schedule = make_schedule(
        {"name": "linear_decay", "final": 0.25, "until": 0.8}, optimizer, steps=50, epochs=5
    )
    tau = 0.8 * 50
    for k in range(60):
        alpha = min(k / tau, 1.0)
        expected = (1 - alpha) * 0.4 + alpha * 0.25 * 0.4
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        schedule.scheduler.step()


def test_linear_decay_ends_at_zero_unless_told_otherwise() -> None:
    run = train(small, "sgd", {"lr": 0.3}, schedule={"name": "linear_decay"})
    assert run.curve("optimizer", "lr")[1] == pytest.approx([0.3, 0.2, 0.1, 0.0])


@pytest.mark.parametrize("name", sorted(set(schedule_names()) - NEED_A_FUNCTION))
def test_every_schedule_of_torch_trains(name: str) -> None:
    declared = {"name": name, **ARGUMENTS.get(name, {})}
    check_schedule(declared, sgd())
    run = train(small, "momentum", {"lr": 0.01}, epochs=2, schedule=declared)
    assert run.status is Status.FINISHED, run.reason


def test_all_that_torch_has_are_named() -> None:
    from torch.optim import lr_scheduler

    composed = {"ChainedScheduler", "SequentialLR", "LRScheduler"}
    assert set(schedule_names()) - {"linear_decay"} >= set(lr_scheduler.__all__) - composed


@pytest.mark.parametrize(
    ("interval", "expected"), [("step", 0.1 * 0.5**STEPS), ("epoch", 0.1 * 0.5)]
)
def test_interval_is_a_step_or_an_epoch(interval: str, expected: float) -> None:
    declared = {"name": "ExponentialLR", "gamma": 0.5, "interval": interval}
    run = train(small, "sgd", {"lr": 0.1}, epochs=2, schedule=declared)
    assert run.curve("optimizer", "lr")[1][1] == pytest.approx(
        expected if interval == "step" else 0.1
    )
    # The rate of an epoch is logged before the step that ends it.
    assert run.curve("optimizer", "lr")[1][2] == pytest.approx(
        0.1 * 0.5 ** (2 * STEPS) if interval == "step" else expected
    )


@pytest.mark.parametrize(("interval", "t_max"), [("step", 3 * STEPS), ("epoch", 3)])
def test_the_word_horizon_stands_for_it(interval: str, t_max: int) -> None:
    declared = {"name": "CosineAnnealingLR", "T_max": "horizon", "interval": interval}
    made = make_schedule(declared, sgd(), steps=3 * STEPS, epochs=3)
    assert made.scheduler.T_max == t_max  # type: ignore[attr-defined]


def test_a_plateau_schedule_watches_validation() -> None:
    declared = {"name": "ReduceLROnPlateau", "factor": 0.5, "patience": 0, "eps": 0.0}
    run = train(small, "sgd", {"lr": 1e-12}, epochs=4, schedule=declared)
    assert run.curve("optimizer", "lr")[1] == [1e-12, 1e-12, 1e-12, 5e-13, 2.5e-13]


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({}, "unknown schedule None"),
        ({"name": "CosinAnnealingLR"}, "did you mean 'CosineAnnealingLR'"),
        ({"name": "linear_decy"}, "did you mean 'linear_decay'"),
        ({"name": "LRScheduler"}, "unknown schedule"),
        ({"name": "StepLR"}, "StepLR: .*step_size"),
        ({"name": "StepLR", "step_sise": 3}, "step_sise"),
        ({"name": "StepLR", "step_size": 3, "interval": "day"}, "'step' or 'epoch', got 'day'"),
        ({"name": "linear_decay", "end": 0.1}, "takes 'final' and 'until', got end"),
        ({"name": "linear_decay", "final": -0.1}, r"final must lie in \[0, 1\]"),
        ({"name": "linear_decay", "final": "low"}, r"final must lie in \[0, 1\]"),
        ({"name": "linear_decay", "until": 0.0}, r"until must lie in \(0, 1\]"),
        ({"name": "CyclicLR", "max_lr": "a"}, "CyclicLR: "),
        ({"name": "CyclicLR", "base_lr": 0.1, "max_lr": 1}, "CyclicLR: leave out base_lr"),
        ({"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 5}, "leave out max_lr.* its peak"),
        ({"name": "CosineAnnealingLR", "T_max": "horizn"}, "CosineAnnealingLR: "),
        ({"name": "ReduceLROnPlateau", "interval": "step"}, "must be 'epoch', got 'step'"),
        ({"name": "LambdaLR"}, "lr_lambda"),
    ],
)
def test_what_cannot_be_built_is_one_line(declared: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        check_schedule(declared, sgd())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["linear_decay", "OneCycleLR", "CosineAnnealingLR"])
def test_a_schedule_needs_a_learning_rate(name: str) -> None:
    optimizer = sgd()
    del optimizer.param_groups[0]["lr"]
    with pytest.raises(ValueError, match=f"{name}: SGD has no learning rate .* leave the schedule"):
        check_schedule({"name": name, "T_max": 5}, optimizer)


def test_a_schedule_is_tried_on_the_optimizer_it_is_for() -> None:
    declared = {"name": "CyclicLR", "max_lr": 0.1, "cycle_momentum": True}
    check_schedule(declared, sgd())
    plain = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    plain.param_groups[0].pop("momentum")
    plain.defaults.pop("momentum")
    with pytest.raises(ValueError, match="momentum"):
        check_schedule(declared, plain)


@pytest.mark.parametrize(
    "declared",
    [{"name": "OneCycleLR", "total_steps": "horizon"}, {"name": "CyclicLR", "max_lr": 0.5}],
)
def test_momentum_stays_as_it_is_declared(declared: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.5)
    schedule = make_schedule(declared, optimizer, steps=20, epochs=1)
    for _ in range(10):
        optimizer.step()
        schedule.scheduler.step()
        assert optimizer.param_groups[0]["momentum"] == 0.5


def test_a_schedule_must_last_as_long_as_the_horizon() -> None:
    declared = {"name": "OneCycleLR", "total_steps": 50}
    check_schedule(declared, sgd())
    check_schedule(declared, sgd(), steps=50 - 1, epochs=1)
    with pytest.raises(ValueError, match=r"OneCycleLR: .*total steps is 50"):
        check_schedule(declared, sgd(), steps=111, epochs=3)


def test_a_schedule_of_few_epochs_is_good_for_few_epochs() -> None:
    declared = {"name": "OneCycleLR", "total_steps": 5, "interval": "epoch"}
    check_schedule(declared, sgd())
    check_schedule(declared, sgd(), steps=100, epochs=4)


def test_a_warmup_in_epochs_is_tried_on_many() -> None:
    declared = {"name": "OneCycleLR", "total_steps": "horizon", "interval": "epoch"}
    check_schedule({**declared, "pct_start": 0.5}, sgd())
    check_schedule({**declared, "pct_start": 0.5}, sgd(), steps=4000, epochs=40)
    with pytest.raises(ValueError, match="train for more steps or lengthen it"):
        check_schedule({**declared, "pct_start": 0.5}, sgd(), steps=200, epochs=2)


def test_a_plateau_rule_knows_which_way_its_metric_improves() -> None:
    for metric, mode in (
        ("valid_accuracy", "max"),
        ("valid_loss", "min"),
        ("valid_logloss", "min"),
    ):
        schedule = make_schedule(
            {"name": "ReduceLROnPlateau", "metric": metric}, sgd(), steps=10, epochs=2
        )
        assert schedule.scheduler.mode == mode  # type: ignore[attr-defined]


def test_the_tuned_rate_is_the_peak_of_one_cycle() -> None:
    rates = rates_of({"name": "OneCycleLR", "total_steps": "horizon"}, lr=0.03, steps=10)
    assert max(rates[1:]) == pytest.approx(0.03)


def test_a_warmup_of_one_step_is_refused_with_what_to_do() -> None:
    declared = {"name": "OneCycleLR", "total_steps": "horizon", "pct_start": 0.1}
    with pytest.raises(ValueError, match=r"OneCycleLR: .* train for more steps or lengthen it"):
        make_schedule(declared, sgd(), steps=10, epochs=1)


@pytest.mark.parametrize("share", [0.01, 0.02, 0.1, 0.3])
def test_warmup_is_one_cycle_over_a_share_of_the_steps(share: float) -> None:
    declared = {
        "name": "OneCycleLR",
        "total_steps": "horizon",
        "pct_start": share,
        "anneal_strategy": "linear",
        "cycle_momentum": False,
    }
    check_schedule(declared, sgd())
    rates = rates_of(declared, lr=0.03, steps=1000)
    peak = round(share * 1000) - 1
    assert rates[peak] == pytest.approx(max(rates)) == pytest.approx(0.03)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[-1] < 1e-4
