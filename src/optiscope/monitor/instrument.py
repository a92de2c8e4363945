"""What watches a training: the protocol of an instrument, and what it is shown.

An instrument is called by the loop with plain values and answers with numbers for the record. It
never changes what it watches: model, buffers, modes, gradients and random generators are the same
after each call as before it.

Index legend: B samples in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer

from optiscope.records import Status

if TYPE_CHECKING:
    from optiscope.objective.risk import EmpiricalRisk

__all__ = ["NEEDS", "EndRun", "EpochView", "Instrument", "StartView", "StepView", "check_needs"]

NEEDS = ("gradients", "start")
"""What costs a copy in each step and is made only where an instrument asks for it."""

Values = Mapping[str, float] | None
"""Numbers for the record, by name; they appear there under the instrument's name."""


class EndRun(Exception):
    """Raised by an instrument to end the run it watches.

    Args:
        status: how the run ends.
        reason: why, in words.
        step: the step at which it ended where that is not the latest one.
        values: what to record of that step.
    """

    def __init__(
        self,
        status: Status,
        reason: str,
        *,
        step: int | None = None,
        values: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(reason)
        self.status, self.reason, self.step, self.values = status, reason, step, values or {}


@dataclass(frozen=True)
class StartView:
    """A run before its first step.

    Attributes:
        model: what is trained.
        optimizer: what trains it.
        parameters: what it trains, in the optimizer's order.
        epochs: horizon.
        steps_per_epoch: steps in each epoch.
        batch_size: samples in each batch, B.
    """

    model: nn.Module
    optimizer: Optimizer
    parameters: Sequence[Tensor]
    epochs: int
    steps_per_epoch: int
    batch_size: int


@dataclass
class StepView:
    """One training step, after the optimizer has moved the parameters.

    What an instrument does not look at costs nothing.

    Attributes:
        step: number of the step, from 1.
        epoch: share of epochs done: 1.5 is the middle of the second.
        loss: mean loss [] of the batch before the step, without a regularization term.
        inputs, targets: the batch, [B, ...] each.
        model: what is trained.
        optimizer: what trains it.
        parameters: after the step, in the optimizer's order.
        copies: what the instruments' ``needs`` asked for, by that word.
        make_risk: makes the batch's loss as a function of the parameters.
        wait: waits for the device, where there is one to wait for; the time counts as training.
    """

    step: int
    epoch: float
    loss: Tensor
    inputs: Tensor
    targets: Tensor
    model: nn.Module
    optimizer: Optimizer
    parameters: Sequence[Tensor]
    copies: Mapping[str, Sequence[Tensor | None]] = field(default_factory=dict)
    make_risk: Callable[[], EmpiricalRisk] | None = None
    wait: Callable[[], None] = lambda: None

    @property
    def gradients(self) -> Sequence[Tensor | None]:
        """Gradients that the optimizer was given first, for each parameter (needs "gradients").

        Of the objective, with its regularization term, after clipping; None for a parameter that
        had none.
        """
        return self._copies("gradients")

    @property
    def start(self) -> Sequence[Tensor]:
        """Parameters before the step (needs "start"): where loss and gradients were computed."""
        return [p for p in self._copies("start") if p is not None]

    @cached_property
    def risk(self) -> EmpiricalRisk:
        """Mean loss of the batch as a function of the parameters; those after the step unless told.

        Raises:
            LookupError: whoever made the view has no such function.
        """
        if self.make_risk is None:
            raise LookupError("expected a view with a risk, got one that was made without")
        return self.make_risk()

    def _copies(self, word: str) -> Sequence[Tensor | None]:
        if word not in self.copies:
            raise LookupError(f"declare needs = frozenset({{{word!r}}}) to see {word}")
        return self.copies[word]


@dataclass(frozen=True)
class EpochView:
    """A run after an epoch; epoch 0 is before the first step.

    Attributes:
        epoch: number of epochs done.
        epochs: horizon.
        step: number of steps done.
        model, optimizer, parameters: as for :class:`StartView`.
        latest: last value of each ``split_name`` measured so far, such as ``valid_loss``.
        evaluated: names of the evaluation sets.
    """

    epoch: int
    epochs: int
    step: int
    model: nn.Module
    optimizer: Optimizer
    parameters: Sequence[Tensor]
    latest: Mapping[str, float]
    evaluated: Sequence[str]

    @property
    def last(self) -> bool:
        """Whether the horizon is reached."""
        return self.epoch == self.epochs


@runtime_checkable
class Instrument(Protocol):
    """Something that measures a training, or ends it.

    A subclass overrides the moments that it is interested in; any other object that has some of
    these methods will do. What a method returns is recorded under ``name``, as ``name_key``.
    :class:`EndRun` ends the run; any other error goes on to whoever handed the instrument over.

    Attributes:
        name: word for its numbers in the record.
        needs: words of :data:`NEEDS`.
    """

    name: str = "instrument"
    needs: frozenset[str] = frozenset()

    def on_start(self, view: StartView) -> None:
        """Before the first step."""
        return None

    def on_step(self, view: StepView) -> Values:
        """After each step."""
        return None

    def on_epoch(self, view: EpochView) -> Values:
        """After each epoch's steps, before its evaluation; epoch 0 is before the first step."""
        return None

    def on_evaluation(self, view: EpochView) -> Values:
        """After the evaluation that follows each epoch (and precedes the first step)."""
        return None

    def close(self) -> None:
        """When the run has ended, however it did."""
        return None


def check_needs(instruments: Iterable[Instrument]) -> frozenset[str]:
    """All that the instruments need; raises ValueError where one needs what there is not."""
    needs = frozenset(word for one in instruments for word in getattr(one, "needs", ()))
    unknown = sorted(needs - set(NEEDS))
    if unknown:
        raise ValueError(
            f"an instrument needs one or more of {', '.join(NEEDS)}, got {unknown[0]!r:.80}"
        )
    return needs
