"""Conformance suite for an instrument: what it must leave alone, and what it must say.

Subclass it in a test file and let pytest collect it::

    class TestMine(InstrumentConformance):
        def make(self):
            return MyInstrument(every=10)
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from optiscope import problems
from optiscope.monitor.instrument import EpochView, Instrument, StepView, check_needs
from optiscope.optim import registry
from optiscope.records import Run, Status, Trial
from optiscope.train import run_trial

__all__ = ["InstrumentConformance"]


class _Witness(Instrument):
    """Notes all that another instrument must leave alone."""

    name = "witness"

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def on_step(self, view: StepView) -> None:
        self._note(view)

    def on_epoch(self, view: EpochView) -> None:
        self._note(view)

    def on_evaluation(self, view: EpochView) -> None:
        self._note(view)

    def _note(self, view: StepView | EpochView) -> None:
        tensors = [*view.model.state_dict().values(), *(p.grad for p in view.parameters)]
        modes = tuple(module.training for module in view.model.modules())
        drawn = (torch.get_rng_state().sum().item(), random.getstate(), repr(np.random.get_state()))
        flags = tuple(p.requires_grad for p in view.parameters)
        self.seen.append((*map(_content, tensors), modes, drawn, flags, torch.is_grad_enabled()))


def _content(tensor: Tensor | None) -> bytes:
    return b"" if tensor is None else tensor.detach().contiguous().numpy().tobytes()


class InstrumentConformance:
    """A run with it is the run without it, bit for bit; its numbers are numbers; it closes.

    Attributes:
        problems: small problems of the catalogue, with dropout and batch norm among them.
        optimizers: names, each with its hyperparameters.
        epochs: of each run.
    """

    problems: ClassVar[Sequence[str]] = ("digits_mlp", "digits_conv")
    optimizers: ClassVar[Sequence[tuple[str, dict[str, float]]]] = (
        ("momentum", {"lr": 0.02}),
        ("preconditioned_sgd", {}),
    )
    epochs: ClassVar[int] = 1

    def make(self) -> Instrument:
        """A fresh instrument."""
        raise NotImplementedError

    def run(
        self,
        instruments: Sequence[Instrument],
        problem: str = "digits_mlp",
        optimizer: str = "momentum",
        hyperparameters: dict[str, float] | None = None,
    ) -> Run:
        """A run that the instruments watch."""
        subject = problems.get(problem)
        bound = registry.bind(
            optimizer, {"lr": 0.02} if hyperparameters is None else hyperparameters
        )
        trial = Trial(
            problem, subject.version, optimizer, bound.hyperparameters, 3, self.epochs, 64
        )
        return run_trial(trial, subject, bound, instruments=instruments)

    def test_a_run_with_it_is_the_run_without(self) -> None:
        """Losses, weights, buffers, gradients, modes and generators, after every call."""
        for problem in self.problems:
            for optimizer, settings in self.optimizers:
                alone, beside, mine = _Witness(), _Witness(), self.make()
                without = self.run([alone], problem, optimizer, settings)
                watched = self.run([mine, beside], problem, optimizer, settings)
                name = getattr(mine, "name", type(mine).__name__)
                own = [m for m in watched.metrics if m.split != name]
                assert own == list(without.metrics), f"{problem} with {optimizer}: other losses"
                assert (watched.status, watched.steps) == (without.status, without.steps)
                assert watched.counts == without.counts
                assert beside.seen == alone.seen, f"{problem} with {optimizer}: it left a trace"

    def test_its_numbers_are_numbers_under_its_name(self) -> None:
        """Floats by name, so that records can hold them."""
        mine = self.make()
        name = getattr(mine, "name", type(mine).__name__)
        rows = [m for m in self.run([mine]).metrics if m.split == name]
        assert all(isinstance(m.name, str) and isinstance(m.value, int | float) for m in rows)
        assert name not in ("train", "valid", "test", "batch", "optimizer", "penalty")

    def test_it_needs_what_there_is(self) -> None:
        """Its ``needs`` are words that the loop knows."""
        check_needs([self.make()])

    def test_it_survives_divergence(self) -> None:
        """A run that diverges while it watches ends as it would without it, and it is closed."""
        mine, closed = self.make(), list[bool]()
        close = getattr(mine, "close", lambda: None)

        class Closing(Instrument):
            name = "closing"

            def close(self) -> None:
                closed.append(True)

        run = self.run([mine, Closing()], hyperparameters={"lr": 1e30})
        assert run.status is Status.DIVERGED
        assert closed == [True]
        close()  # once more does no harm

    def test_its_time_is_that_of_instruments(self) -> None:
        """What it takes is not counted as training."""
        run = self.run([self.make()])
        assert math.isfinite(run.seconds["instruments"].wall)
