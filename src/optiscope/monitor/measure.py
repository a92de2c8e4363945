"""An instrument of the cockpit: a small observer that adds to the series of the session.

Light ones read what a step offers anyway. The others call the model again on a few samples of the
batch, on copies, with generators of their own. Each has a name, and the budget decides how often it
is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from optiscope.monitor.budget import Budget
from optiscope.monitor.events import Forward, Observer, WatchedStep
from optiscope.monitor.outputs import main_output
from optiscope.monitor.probe import rows_of
from optiscope.monitor.series import Series

if TYPE_CHECKING:
    from optiscope.monitor.session import Session

__all__ = ["BatchMeasure", "Measure", "fork", "on_output"]


class Measure(Observer):
    """An instrument: ``measure(view)`` at looked-at steps, as often as the budget allows."""

    name: ClassVar[str] = "measure"

    def __init__(self, series: Series, budget: Budget) -> None:
        self.series, self.budget = series, budget
        self.session: Session
        self.trouble = ""

    def start(self, session: Session) -> None:
        """Keep the session."""
        self.session = session

    def after_step(self, view: WatchedStep) -> None:
        """Measure every so many steps, as the budget allows."""
        if view.tick and not view.index and self.budget.due(self.name, view.number):
            with self.budget.spend(self.name, view.number):
                self.measure(view)

    def measure(self, view: WatchedStep) -> None:
        """Add to the series what this step shows."""
        raise NotImplementedError


class BatchMeasure(Measure):
    """An instrument that calls model and loss again on samples of the step's batch."""

    samples: ClassVar[int] = 16

    def batch(self, view: WatchedStep) -> tuple[Forward, Tensor, Callable[..., Any]] | None:
        """Samples of the last training forward, their targets and the loss; None without them."""
        training = [f for f in view.forwards if f.grad and f.args]
        if not training:
            return None
        forward = training[-1]
        loss = self.session.loss_function
        target = forward.target
        labels = forward.labels if forward.form is None else forward.form.labels
        known = self.session.form_kind == "cross_entropy"
        if target is None and labels is not None and known and len(labels) == forward.size:
            target = labels
            loss = loss if callable(loss) else nn.functional.cross_entropy
        if target is None or not callable(loss):
            self.trouble = "needs the loss: pass loss= or use watch.loss(...)"
            return None
        carrier = forward
        if forward.target is None:
            carrier.target = target
        small = rows_of(carrier, self.samples)
        if small is None or small.target is None or len(small.inputs) != 1:
            self.trouble = "needs a model of one tensor"
            return None
        return small, small.target, loss


def on_output(loss: Callable[..., Any]) -> Callable[[Any, Tensor], Tensor]:
    """The loss on the main output of a structured one."""

    def call(output: Any, target: Tensor) -> Tensor:
        main = main_output(output)
        value: Tensor = loss(output if main is None else main, target)
        return value

    return call


def fork(model: nn.Module, seed: int) -> None:
    """Seed the generators that ``probing`` has forked."""
    torch.default_generator.manual_seed(seed)
    for index in {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}:
        torch.cuda.default_generators[index].manual_seed(seed)
