"""Learning-rate schedules as declared values.

A schedule is a table with a ``name`` and arguments:

- ``{name = "linear_decay", final = 0.0, until = 1.0}``: ε_k = (1 - α) ε_0 + α ε_τ with α = k / τ,
  ε_τ = final · ε_0 and τ = until · horizon; constant after τ (Goodfellow et al. 2016, eq. 8.14);
- ``{name = "CosineAnnealingLR", T_max = "horizon"}``: any class of ``torch.optim.lr_scheduler``
  with its arguments. ``interval`` is ``"step"`` (default) or ``"epoch"``; the word ``"horizon"`` as
  an argument stands for the horizon in that interval. ``OneCycleLR`` has its peak at the
  optimizer's ``lr``, ``CyclicLR`` its base, and both leave momentum and betas as they are unless
  ``cycle_momentum = true``; ``ReduceLROnPlateau`` watches ``metric``. Warmup is
  ``OneCycleLR`` with ``total_steps = "horizon"``, ``anneal_strategy = "linear"`` and the share of
  the steps it takes as ``pct_start``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer, lr_scheduler

from optiscope.errors import message_of
from optiscope.hints import did_you_mean
from optiscope.records.run import higher_is_better

__all__ = ["Schedule", "anneals_twice", "check_schedule", "make_schedule", "schedule_names"]


_RATE_OF_ITS_OWN = {"OneCycleLR": "max_lr", "CyclicLR": "base_lr"}
"""Arguments that would replace the rates of the groups; they are taken from these instead."""

_TRIED = 1000
"""Horizon of a trial declaration: in ``OneCycleLR`` a warmup of one step divides by zero."""


@dataclass(frozen=True)
class Schedule:
    """A scheduler of torch and when to step it; ``metric`` names what a plateau rule watches."""

    scheduler: lr_scheduler.LRScheduler
    interval: str
    metric: str | None = None

    def step(self, latest: Mapping[str, float]) -> None:
        """Go on to the next rate, seen the ``latest`` value of the metric that is watched."""
        if self.metric is None:
            self.scheduler.step()
        else:
            assert isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau)
            self.scheduler.step(latest[self.metric])


def schedule_names() -> list[str]:
    """``linear_decay`` and every scheduler class of torch."""
    classes = {
        name
        for name, value in vars(lr_scheduler).items()
        if isinstance(value, type)
        and issubclass(value, lr_scheduler.LRScheduler)
        and value is not lr_scheduler.LRScheduler
        and not name.startswith("_")
    }
    return ["linear_decay", *sorted(classes - {"SequentialLR", "ChainedScheduler"})]


def anneals_twice(label: str, declared: Mapping[str, Any], instead: str) -> str:
    """What to say where an optimizer that is told the horizon is given a schedule as well."""
    return (
        f"{label} is told the horizon, to anneal by itself; the schedule {declared['name']} "
        f"anneals it a second time: {instead}"
    )


def check_schedule(
    declared: Mapping[str, Any],
    optimizer: Optimizer,
    *,
    steps: int | None = None,
    epochs: int | None = None,
) -> None:
    """Raise ValueError with one line where a schedule does not suit an optimizer or a horizon.

    Args:
        declared: the table of the schedule.
        optimizer: one that is thrown away afterwards.
        steps: horizon in steps, up to which the schedule is tried; without it, a long horizon of
            which only the beginning is tried.
        epochs: horizon in epochs, with the same default.
    """
    schedule = make_schedule(declared, optimizer, steps=steps or _TRIED, epochs=epochs or _TRIED)
    known = epochs if schedule.interval == "epoch" else steps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for _ in range(known or (2 if schedule.interval == "epoch" else 9)):
                schedule.step({} if schedule.metric is None else {schedule.metric: 1.0})
        except Exception as error:
            raise _refused(str(declared.get("name")), error) from None


def make_schedule(
    declared: Mapping[str, Any], optimizer: Optimizer, *, steps: int, epochs: int
) -> Schedule:
    """Build a declared schedule for a horizon of ``steps`` in ``epochs``.

    Raises:
        ValueError: unknown name, bad interval or bad arguments.
    """
    arguments = dict(declared)
    name = arguments.pop("name", None)
    if any("lr" not in group for group in optimizer.param_groups):
        raise ValueError(
            f"schedule {name}: {type(optimizer).__name__} has no learning rate in its parameter "
            "groups: leave the schedule out"
        )
    if name == "linear_decay":
        return _linear_decay(arguments, optimizer, steps)
    if name not in schedule_names():
        raise ValueError(f"unknown schedule {name!r}; {did_you_mean(name, schedule_names())}")
    plateau = name == "ReduceLROnPlateau"
    interval = arguments.pop("interval", "epoch" if plateau else "step")
    if interval not in (("epoch",) if plateau else ("step", "epoch")):
        words = "'epoch'" if plateau else "'step' or 'epoch'"
        raise ValueError(f"interval of {name} must be {words}, got {interval!r}")
    metric = None
    if plateau:
        metric = str(arguments.pop("metric", "valid_loss"))
        arguments.setdefault("mode", "max" if higher_is_better(metric) else "min")
    if (own := _RATE_OF_ITS_OWN.get(str(name))) is not None:
        if own in arguments:
            place = "its peak" if own == "max_lr" else "where it starts"
            raise ValueError(
                f"schedule {name}: leave out {own}, which would replace the optimizer's lr: that "
                f"is {place}"
            )
        arguments[own] = [group["lr"] for group in optimizer.param_groups]
        arguments.setdefault("cycle_momentum", False)
    horizon = steps if interval == "step" else epochs
    arguments = {k: horizon if v == "horizon" else v for k, v in arguments.items()}
    try:
        scheduler = getattr(lr_scheduler, name)(optimizer, **arguments)
    except Exception as error:
        raise _refused(str(name), error) from None
    return Schedule(scheduler, interval, metric)


def _refused(name: str, error: Exception) -> ValueError:
    """What torch has against a schedule, in one line."""
    why = message_of(error) or type(error).__name__
    if isinstance(error, ZeroDivisionError):
        why += ", as a phase of it lasts one step or none: train for more steps or lengthen it"
    return ValueError(f"schedule {name}: {why}")


def _linear_decay(arguments: dict[str, Any], optimizer: Optimizer, steps: int) -> Schedule:
    final = arguments.pop("final", 0.0)
    until = arguments.pop("until", 1.0)
    if arguments:
        raise ValueError(f"linear_decay takes 'final' and 'until', got {', '.join(arguments)}")
    if not (isinstance(final, int | float) and 0 <= final <= 1):
        raise ValueError(f"linear_decay: final must lie in [0, 1], got {final!r}")
    if not (isinstance(until, int | float) and 0 < until <= 1):
        raise ValueError(f"linear_decay: until must lie in (0, 1], got {until!r}")
    tau = until * steps

    def factor(step: int) -> float:
        alpha = min(step / tau, 1.0)
        return float((1 - alpha) + alpha * final)

    return Schedule(lr_scheduler.LambdaLR(optimizer, factor), "step")
