"""A run that was interrupted goes on bit for bit: it measures and counts what one run would."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_problems import STEPS, Linear, noisy_splits, small
from torch import nn

import optiscope
from optiscope import problems
from optiscope.monitor.instrument import Instrument, StepView
from optiscope.optim import registry
from optiscope.problems import Problem
from optiscope.records import Run, RunStore, Status, Trial
from optiscope.train import run_trial
from optiscope.train.checkpoint import Checkpoint


class Pull(Instrument):
    """Sends a signal after a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self.step, self.number = step, number

    def on_step(self, view: StepView) -> None:
        if view.step == self.step:
            os.kill(os.getpid(), self.number)


class Normed(nn.Module):
    """Batch norm, dropout and a counter that is no persistent buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 6), nn.BatchNorm1d(6)
        self.drop, self.last = nn.Dropout(0.3), nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        hidden = self.norm(self.first(inputs[:, 1:])) * (1 + 0.01 * self.calls)
        outputs: torch.Tensor = self.last(self.drop(torch.relu(hidden)))
        return outputs


normed = dataclasses.replace(small, make_model=Normed, data=noisy_splits)
dropped = dataclasses.replace(small, make_model=functools.partial(Linear, 0.3), data=noisy_splits)


def same(first: Run, second: Run) -> None:
    assert first.metrics == second.metrics
    assert (first.status, first.reason) == (second.status, second.reason)
    assert (first.steps, first.counts) == (second.steps, second.counts)


def interrupted_twice(
    folder: Path,
    problem: Problem,
    optimizer: str | type[torch.optim.Optimizer] = "sgd",
    hyperparameters: dict[str, Any] | None = None,
    at: tuple[int, ...] = (STEPS - 2, 2 * STEPS),
    **fields: Any,
) -> tuple[Run, Run]:
    """A run without interruption, and one that was interrupted after some steps."""
    bound = registry.bind(optimizer, {"lr": 0.05} if hyperparameters is None else hyperparameters)
    values: dict[str, Any] = {"epochs": 4, "batch_size": problem.batch_size, "seed": 5} | fields
    trial = Trial(problem.name, 1, bound.spec.name, bound.hyperparameters, **values)
    alone = run_trial(trial, problem, bound)
    said: list[str] = []
    for step in at:
        part = run_trial(
            trial, problem, bound, instruments=[Pull(step)],
            checkpoint=Checkpoint.of(folder, trial.hash, said.append),
        )  # fmt: skip
        assert (part.status, part.steps) == (Status.INTERRUPTED, step), part.reason
    whole = run_trial(
        trial, problem, bound, checkpoint=Checkpoint.of(folder, trial.hash, said.append)
    )
    assert not said
    whole = dataclasses.replace(
        whole, metrics=tuple(m for m in whole.metrics if m.split != "instrument")
    )
    assert [s["from_step"] for s in whole.environment["sessions"]] == [0, *at]
    return alone, whole


UNTUNED = ("lark", "preconditioned_sgd", "adaptive_sgd", "only_adaptive_sgd")
UNSAFE = ("shampoo",)  # its state is objects, which nothing loads without running code


@pytest.mark.parametrize("optimizer", [n for n in registry.names() if n not in UNSAFE])
def test_every_shipped_optimizer_goes_on(optimizer: str, tmp_path: Path) -> None:
    try:
        settings = {} if optimizer in UNTUNED or "dadapt" in optimizer else {"lr": 0.01}
        registry.bind(optimizer, settings)
    except registry.BadSettingsError:
        settings = {}
    except ImportError as error:
        pytest.skip(str(error))
    same(*interrupted_twice(tmp_path, normed, optimizer, settings))


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": {"name": "linear_decay"}},
        {"schedule": {"name": "CosineAnnealingLR", "T_max": "horizon"}},
        {"schedule": {"name": "OneCycleLR", "total_steps": "horizon"}},
        {"schedule": {"name": "StepLR", "step_size": 1, "interval": "epoch"}},
        {"schedule": {"name": "ReduceLROnPlateau", "patience": 0, "metric": "valid_loss"}},
        {"early_stopping": {"metric": "valid_loss", "patience": 1, "min_delta": 0.1}},
        {"clip": {"norm": 0.1}},
        {
            "pruning": {
                "pruner": {"name": "MedianPruner", "n_startup_trials": 1, "n_warmup_steps": 2},
                "metric": "valid_loss",
                "past": [{"values": [0.01] * 4, "complete": True}] * 2,
            }
        },
    ],
    ids=lambda fields: str(next(iter(fields.values())).get("name", next(iter(fields)))),
)
def test_schedules_and_ends_go_on(fields: dict[str, Any], tmp_path: Path) -> None:
    same(*interrupted_twice(tmp_path, dropped, "momentum", **fields))


@pytest.mark.parametrize("at", [(1,), (STEPS,), (STEPS + 1, STEPS + 2), (4 * STEPS - 1,)])
def test_wherever_it_is_interrupted(at: tuple[int, ...], tmp_path: Path) -> None:
    same(*interrupted_twice(tmp_path, dropped, "adam", at=at))


@pytest.mark.parametrize("name", ["digits_attention", "digits_rnn", "digits_resnet"])
def test_kinds_of_networks_go_on(name: str, tmp_path: Path) -> None:
    if name not in problems.names():
        pytest.skip("no such problem")
    problem = problems.get(name)
    steps = len(problem.data(None).train) // 256
    at = (1, steps + 1)
    same(*interrupted_twice(tmp_path, problem, "adamw", {}, at=at, epochs=2, batch_size=256))


@pytest.mark.parametrize("optimizer", UNSAFE)
def test_a_state_of_objects_is_said_once_and_starts_over(optimizer: str, tmp_path: Path) -> None:
    bound = registry.bind(optimizer, {"lr": 0.01})
    trial = Trial(normed.name, 1, optimizer, bound.hyperparameters, 5, 2, 8)
    said: list[str] = []
    checkpoint = Checkpoint.of(tmp_path, trial.hash, said.append)
    part = run_trial(trial, normed, bound, instruments=[Pull(3)], checkpoint=checkpoint)
    assert (part.status, part.steps) == (Status.INTERRUPTED, 3)
    assert ["an interrupted trial starts over" in text for text in said] == [True]
    assert not list((tmp_path / ".checkpoints").glob("*"))
    again = run_trial(trial, normed, bound, checkpoint=Checkpoint.of(tmp_path, trial.hash))
    same(again, run_trial(trial, normed, bound))


class Counting(torch.optim.SGD):
    """Anneals by a count that it keeps to itself, and draws noise from NumPy."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        self.left, self.noise = 40, [torch.zeros(1)]

    def step(self, closure: Any = None) -> Any:
        self.left -= 1
        self.noise[0] += float(np.random.randn())
        for group in self.param_groups:
            group["lr"] = 0.1 * self.left / 40 + 1e-3 * float(self.noise[0]) ** 2
        return super().step(closure)


def test_plain_attributes_of_a_custom_optimizer_go_on(tmp_path: Path) -> None:
    same(*interrupted_twice(tmp_path, small, Counting))


class Hiding(torch.optim.SGD):
    """Holds its velocity where no checkpoint can know of it."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        self.velocity = {p: torch.zeros_like(p) for g in self.param_groups for p in g["params"]}


def test_what_cannot_be_saved_says_so_once_and_starts_over(tmp_path: Path) -> None:
    bound = registry.bind(Hiding, {"lr": 0.1})
    trial = Trial("small", 1, "hiding", {"lr": 0.1}, 5, 3, 8)
    said: list[str] = []
    checkpoint = Checkpoint(tmp_path / "a.pt", said.append, every=0.0, apart=0.0)
    run = run_trial(trial, small, bound, checkpoint=checkpoint)
    assert run.status is Status.FINISHED
    assert len(said) == 1
    assert "Hiding.velocity holds tensors outside of the optimizer's state" in said[0]
    assert not (tmp_path / "a.pt").exists()


@pytest.mark.parametrize("damage", [b"", b"\x80\x02cos\nsystem\n", b"PK\x03\x04 nothing"])
def test_a_damaged_checkpoint_is_said_and_not_taken_up(damage: bytes, tmp_path: Path) -> None:
    bound = registry.bind("sgd", {"lr": 0.1})
    trial = Trial("small", 1, "sgd", {"lr": 0.1}, 5, 2, 8)
    said: list[str] = []
    checkpoint = Checkpoint.of(tmp_path, trial.hash, said.append)
    checkpoint.path.parent.mkdir()
    checkpoint.path.write_bytes(damage)
    run = run_trial(trial, small, bound, checkpoint=checkpoint)
    same(run, run_trial(trial, small, bound))
    assert "the trial starts over" in said[0]


def test_a_checkpoint_of_another_trial_is_not_taken_up(tmp_path: Path) -> None:
    bound = registry.bind("sgd", {"lr": 0.1})
    first, second = (Trial("small", 1, "sgd", {"lr": 0.1}, seed, 2, 8) for seed in (1, 2))
    checkpoint = Checkpoint(tmp_path / "a.pt")
    run_trial(first, small, bound, instruments=[Pull(9)], checkpoint=checkpoint)
    said: list[str] = []
    other = Checkpoint(tmp_path / "a.pt", said.append)
    same(run_trial(second, small, bound, checkpoint=other), run_trial(second, small, bound))
    assert "of another trial" in said[0]


def test_run_goes_on_after_ctrl_c_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    def run(**more: Any) -> Run:
        return optiscope.run(
            "digits_logreg", "momentum", hyperparameters={"lr": 0.01}, epochs=2, **more
        )

    with pytest.raises(KeyboardInterrupt):
        run(out=tmp_path, instruments=[Pull(40, signal.SIGINT)])
    whole = run(out=tmp_path)
    alone = run()
    assert whole.metrics == alone.metrics
    assert [s["from_step"] for s in whole.environment["sessions"]] == [0, 40]
    assert not list((tmp_path / ".checkpoints").iterdir())
    assert RunStore(tmp_path).hashes() == [whole.trial.hash]
