"""The instruments of a run: how the loop calls them, and those that every run has.

Every run has the losses of its batches and evaluation sets, which end it when they are not finite,
the optimizer's log, and the caller's progress.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor
from torch.optim import Optimizer

from optiscope.monitor.instrument import EndRun, EpochView, Instrument, StepView, check_needs
from optiscope.records import Status
from optiscope.train.deadline import TimeUp

__all__ = [
    "BatchLoss",
    "EvaluationLoss",
    "InstrumentError",
    "Instruments",
    "Moment",
    "OptimizerLog",
    "Progress",
    "ProgressReport",
]

Moment = Literal["on_start", "on_step", "on_epoch", "on_evaluation"]

Progress = Callable[[float, Mapping[str, float]], None]
"""Called after each evaluation with the share of the horizon done and the latest values."""


class InstrumentError(Exception):
    """An instrument that the caller handed over raised ``original``: no fault of the run."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(str(original))
        self.original = original


@dataclass(frozen=True)
class _Look:
    """One method of one instrument."""

    name: str
    method: Callable[[Any], Mapping[str, float] | None]
    handed: bool

    def look(self, view: Any) -> Mapping[str, float] | None:
        """What it measures; raises EndRun, or InstrumentError where it was handed over."""
        try:
            return self.method(view)
        except (EndRun, KeyboardInterrupt, TimeUp):
            raise
        except BaseException as error:
            if self.handed:
                raise InstrumentError(error) from None
            raise


@runtime_checkable
class Remembering(Protocol):
    """An instrument that a checkpoint must hold."""

    name: str

    def state(self) -> Any:
        """What it remembers, as plain values."""
        ...

    def restore(self, state: Any) -> None:
        """Inverse of :meth:`state`."""
        ...


class Instruments:
    """The instruments of one run, in the order in which they are called.

    Args:
        handed: the caller's; they see a moment before the loop's own may end the run at it.
        own: the loop's.

    Attributes:
        at: per moment, the methods to call.
        needs: all that they need.
    """

    def __init__(self, handed: Sequence[Instrument], own: Sequence[Instrument]) -> None:
        self._own = tuple(own)
        self._all = (*handed, *own)
        self.needs = check_needs(self._all)
        self.at: dict[Moment, list[_Look]] = {moment: [] for moment in get_args(Moment)}
        for place, one in enumerate(self._all):
            name = getattr(one, "name", type(one).__name__)
            for moment, looks in self.at.items():
                method = getattr(one, moment, None)
                if method is not None and getattr(method, "__func__", None) is not getattr(
                    Instrument, moment
                ):
                    looks.append(_Look(name, method, place < len(handed)))

    def states(self) -> dict[str, Any]:
        """What the loop's own remember, by name, as plain values."""
        return {one.name: one.state() for one in self._own if isinstance(one, Remembering)}

    def restore(self, states: Mapping[str, Any]) -> None:
        """Inverse of :meth:`states`."""
        for one in self._own:
            if isinstance(one, Remembering):
                one.restore(states[one.name])

    def close(self) -> None:
        """Close all of them, also where one of them cannot."""
        with ExitStack() as stack:
            for one in reversed(self._all):
                stack.callback(getattr(one, "close", lambda: None))


class BatchLoss(Instrument):
    """Mean loss of an epoch's batches; ends the run at the first that is not finite.

    Args:
        look_every: steps between looks at the losses; on a GPU a look waits for the device.
        ends_run: False where only the cost of a step matters.
    """

    name = "batch"

    def __init__(self, look_every: int = 1, *, ends_run: bool = True) -> None:
        self.look_every, self.ends_run = look_every, ends_run
        self._unseen: list[Tensor] = []
        self._losses: list[float] = []

    def on_step(self, view: StepView) -> None:
        """Remember the loss; look at those of the latest steps when it is time."""
        self._unseen.append(view.loss)
        if len(self._unseen) == self.look_every:
            view.wait()
            self._look(view.step)

    def on_epoch(self, view: EpochView) -> dict[str, float] | None:
        """Mean loss of the epoch's batches."""
        self._look(view.step)
        losses, self._losses = self._losses, []
        return {"loss": sum(losses) / len(losses)} if losses else None

    def state(self) -> list[float]:
        """Losses of the epoch so far."""
        return [*self._losses, *(loss.item() for loss in self._unseen)]

    def restore(self, state: list[float]) -> None:
        """Inverse of :meth:`state`."""
        self._losses = list(state)

    def _look(self, step: int) -> None:
        """Take in the losses of the steps up to ``step``; raises EndRun at one that diverged."""
        if len(self._unseen) == 1:
            losses = [self._unseen[0].item()]
        else:
            losses = torch.stack(self._unseen).tolist() if self._unseen else []
        self._unseen.clear()
        for at, value in enumerate(losses, start=step - len(losses) + 1):
            if self.ends_run and not math.isfinite(value):
                reason = f"the loss of a training batch became {value} at step {at}"
                raise EndRun(Status.DIVERGED, reason, step=at, values={"loss": value})
        self._losses += losses


class EvaluationLoss(Instrument):
    """Ends a run whose loss on an evaluation set is not finite."""

    name = "evaluation"

    def on_evaluation(self, view: EpochView) -> None:
        """Look at the losses just measured."""
        for split in view.evaluated:
            value = view.latest[f"{split}_loss"]
            if not math.isfinite(value):
                reason = f"the {split} loss became {value} at step {view.step}"
                raise EndRun(Status.DIVERGED, reason)


class ProgressReport(Instrument):
    """Tells the caller how far a run is."""

    name = "progress"

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_evaluation(self, view: EpochView) -> None:
        """Share of the horizon done, and the latest values."""
        self._progress(view.epoch / view.epochs, dict(view.latest))


class OptimizerLog(Instrument):
    """What an optimizer says of itself.

    Learning rate of each group, and the numbers in ``get_log()`` where there is one. It
    may return a mapping, or one dataclass per layer with a ``name``: its numbers appear as
    ``field.name``, and of a sequence of numbers (eigenvalues, say) the first.
    """

    name = "optimizer"

    def on_epoch(self, view: EpochView) -> dict[str, float]:
        """The numbers after an epoch."""
        return _log(view.optimizer)


def _log(optimizer: Optimizer) -> dict[str, float]:
    values: dict[str, float] = {}
    for i, group in enumerate(optimizer.param_groups):
        name = "lr" if len(optimizer.param_groups) == 1 else f"lr_{group.get('name', i)}"
        if isinstance(group.get("lr"), int | float | Tensor):
            values[name] = float(group["lr"])
    get_log = getattr(optimizer, "get_log", None)
    if not callable(get_log):
        return values
    log = get_log()
    if isinstance(log, Mapping):
        values.update((k, v) for k, v in _numbers(log) if k != "lr")
    elif isinstance(log, Iterable):
        for layer in log:
            if is_dataclass(layer) and not isinstance(layer, type):
                fields = asdict(layer)
                name = str(fields.pop("name", len(values)))
                values.update((f"{k}.{name}", v) for k, v in _numbers(fields) if k != "shape")
    return values


def _numbers(fields: Mapping[Any, Any]) -> Iterable[tuple[str, float]]:
    for key, value in fields.items():
        first = value[0] if isinstance(value, tuple | list) and value else value
        if isinstance(first, int | float):
            yield str(key), float(first)
