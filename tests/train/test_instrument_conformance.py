"""The conformance suites of instruments and optimizers, on some that must not pass as well."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from optiscope.monitor.instrument import Instrument, StepView
from optiscope.testing.instruments import InstrumentConformance
from optiscope.testing.optimizers import OptimizerConformance


class Norms(Instrument):
    name = "norms"
    needs = frozenset({"gradients"})

    def on_step(self, view: StepView) -> dict[str, float]:
        return {"gradient": sum(g.square().sum().item() for g in view.gradients if g is not None)}


class TestNorms(InstrumentConformance):
    def make(self) -> Instrument:
        return Norms()


class Draws(Instrument):
    def on_step(self, view: StepView) -> None:
        torch.rand(())


class Shifts(Instrument):
    def on_step(self, view: StepView) -> None:
        with torch.no_grad():
            view.parameters[0].add_(0.1).sub_(0.1)


class Clears(Instrument):
    def on_epoch(self, view: Any) -> None:
        view.optimizer.zero_grad()


@pytest.mark.parametrize("kind", [Draws, Shifts, Clears])
def test_an_instrument_that_leaves_a_trace_is_found(kind: type[Instrument]) -> None:
    class Conformance(InstrumentConformance):
        problems = ("digits_mlp",)
        optimizers = (("momentum", {"lr": 0.02}),)

        def make(self) -> Instrument:
            return kind()

    with pytest.raises(AssertionError, match=r"left a trace|other losses"):
        Conformance().test_a_run_with_it_is_the_run_without()


class TestAdam(OptimizerConformance):
    optimizer = "adam"
    hyperparameters: ClassVar[dict[str, float]] = {"lr": 0.01}


class TestLark(OptimizerConformance):
    optimizer = "lark"


class Forgetful(torch.optim.Optimizer):
    """Keeps its velocity where no state dictionary finds it."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})
        self.velocity: dict[Any, Any] = {}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    v = self.velocity.get(p, torch.zeros_like(p))
                    self.velocity[p] = 0.9 * v + p.grad
                    p -= group["lr"] * self.velocity[p]


def test_an_optimizer_that_forgets_is_found() -> None:
    class Conformance(OptimizerConformance):
        optimizer = Forgetful

    Conformance().test_it_learns()
    with pytest.raises(AssertionError):
        Conformance().test_it_goes_on_from_its_state()
