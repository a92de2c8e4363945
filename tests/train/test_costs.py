"""Seconds per phase and counted evaluations."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch
from small_problems import STEPS, Linear, small, train

from optiscope import problems
from optiscope.optim import registry
from optiscope.records import Seconds, Trial
from optiscope.study.cost import time_optimizers
from optiscope.train import clock
from optiscope.train.clock import PHASES, PhaseClock
from optiscope.train.timing import time_interleaved


def test_a_mark_gives_the_time_since_the_last_to_its_phase(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall, cpu = iter([0.0, 1.0, 3.0, 10.0, 14.0]), iter([0.0, 2.0, 2.5, 4.0, 4.5])
    monkeypatch.setattr(clock, "perf_counter", lambda: next(wall))
    monkeypatch.setattr(clock, "process_time", lambda: next(cpu))
    phases = PhaseClock()
    phases.mark("data")
    phases.mark("optimizer")
    phases.restart()
    phases.mark("data")
    assert phases.seconds() == {"data": Seconds(5.0, 2.5), "optimizer": Seconds(2.0, 0.5)}


def test_phases_add_up_to_the_run() -> None:
    began = time.perf_counter()
    run = train(small, epochs=20)
    elapsed = time.perf_counter() - began
    assert set(run.seconds) == set(PHASES)
    total = sum(s.wall for s in run.seconds.values())
    assert 0.05 * elapsed < total <= elapsed
    assert all(s.wall >= 0 and s.cpu >= 0 for s in run.seconds.values())


def test_a_slow_model_is_in_forward_and_backward_and_a_slow_step_in_the_optimizer() -> None:
    class SlowModel(Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if self.training:
                time.sleep(0.01)
            return super().forward(inputs)

    class SlowStep(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            time.sleep(0.02)

    run = train(dataclasses.replace(small, make_model=SlowModel), SlowStep, {"lr": 0.1}, epochs=1)
    assert run.seconds["forward_backward"].wall >= STEPS * 0.01
    assert run.seconds["optimizer"].wall >= STEPS * 0.02
    assert run.seconds["optimizer"].cpu < STEPS * 0.02
    assert run.training_seconds.wall >= STEPS * 0.03


def test_a_record_says_where_and_on_what() -> None:
    run = train(small, epochs=1)
    assert run.peak_memory_bytes is not None
    assert 10**7 < run.peak_memory_bytes < 10**12
    for key in ("python", "packages", "processor", "cores", "threads", "system", "commit"):
        assert key in run.environment
    assert run.environment["packages"]["torch"]
    assert run.started.endswith("+00:00")


def test_hessian_products_are_those_the_optimizer_counts() -> None:
    class Counting(torch.optim.SGD):
        hessian_products = 0

        def step(self, closure: object = None) -> None:  # type: ignore[override]
            self.hessian_products += 2

        def get_log(self) -> dict[str, object]:
            return {"rank": 3, "name": "x", "lr": 7.0}

    run = train(small, Counting, {"lr": 0.1}, epochs=1)
    assert run.counts == {"gradient_evaluations": STEPS, "hessian_products": 2 * STEPS}
    assert run.final["optimizer_rank"] == 3.0
    assert run.final["optimizer_lr"] == 0.1
    assert "optimizer_name" not in run.final


def test_an_optimizer_that_diverges_is_timed_like_any_other() -> None:
    problem = problems.get("digits_mlp")
    bound = registry.bind("sgd", {"lr": 1e12})
    trial = Trial(
        problem="digits_mlp",
        problem_version=problem.version,
        optimizer="sgd",
        hyperparameters={"lr": 1e12},
        seed=0,
        epochs=3,
        batch_size=32,
        device="cpu",
        threads=1,
    )
    chunks = list(time_interleaved([trial], problem, [bound], repetitions=2))
    assert [chunk.steps for chunk in chunks] == [37, 37]
    assert all(chunk.total.wall > 0 for chunk in chunks)


def test_an_epochs_seconds_are_those_of_all_its_steps_however_few_are_timed() -> None:
    rows = time_optimizers("digits_logreg", ["sgd"], repetitions=1, steps=2)["rows"]
    steps = len(problems.get("digits_logreg").data(None).train) // 32
    expected = steps * rows[0]["milliseconds_per_step"] / 1000
    assert rows[0]["seconds_per_epoch"] == pytest.approx(expected)
