"""Schedule: a rate that rises, collapses or never warms up, and a scheduler in the wrong unit."""

from __future__ import annotations

import itertools
import math
import weakref
from collections import deque
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from optiscope.doctor.alive import instances_of
from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, WatchedStep
from optiscope.monitor.unwrap import unwrap_optimizer

__all__ = ["RULES"]


class Schedule(Rule):
    """How the rate changes from step to step, and what its scheduler is set to do."""

    name = "rate_rising"
    family = "rate"
    also = (
        "rate_collapsed",
        "rate_range_test",
        "schedule_in_wrong_unit",
        "warmup_never_ends",
        "scheduler_never_stepped",
        "scheduler_of_other_optimizer",
        "schedule_factor_is_a_rate",
        "rate_set_without_effect",
    )

    def __init__(self) -> None:
        super().__init__()
        self.rate: float | None = None
        self.changes: deque[tuple[int, float, float]] = deque(maxlen=400)
        self.first_ratio = 0.0
        self.first = 0.0
        self.highest = 0.0
        self.fell_at: int | None = None
        self.epochs = 0
        self.evaluated_at = -1
        self.searched = False
        self.schedulers: list[Any] = []
        self.began: dict[int, tuple[int, int]] = {}
        self.beside: tuple[Any, ...] | None = None

    def start(self, session: Any) -> None:
        """Take the schedulers that were handed over."""
        super().start(session)
        self.schedulers = list(session.schedulers)

    def forward(self, forward: Forward) -> None:
        """An evaluation after several steps ends an epoch."""
        if not forward.grad and self.session.step - self.evaluated_at >= 5:
            self.evaluated_at = self.session.step
            self.epochs += self.session.step > 0

    def rates_changed(self, index: int, number: int, rates: tuple[float, ...]) -> None:
        """Follow the rate of the first group."""
        if index or not math.isfinite(rates[0]):
            return
        rate, before = rates[0], self.rate
        if before is None:
            self.first = self.highest = rate
        elif rate != before:
            self.changes.append((number, before, rate))
            if not self.first_ratio and before > 0:
                self.first_ratio = rate / before
        self.rate = rate
        self.highest = max(self.highest, rate)

    def after_step(self, view: WatchedStep) -> None:
        """Judge the rates so far."""
        rate = view.rates[0]
        if view.index or self.rate is None or not math.isfinite(rate):
            return
        self._collapsed(view, rate)
        if not view.tick:
            return
        if view.number >= 3 and not self.searched:
            self._search(view)
        self._beside(view, rate)
        self._rising(view, rate)
        self._warmup(view, rate)
        for reference in self.schedulers:
            scheduler = reference()
            if scheduler is not None:
                self._scheduler(view, scheduler)

    def _search(self, view: WatchedStep) -> None:
        """Find the schedulers of the optimizer, where none was handed over."""
        self.searched = True
        if self.schedulers:
            return
        every = []
        for item in instances_of(LRScheduler):
            try:
                if item.optimizer is view.optimizer or self._forgotten(item.optimizer):
                    every.append(item)
            except Exception:  # half-built objects of other libraries
                continue
        inside = {id(s) for item in every for s in getattr(item, "_schedulers", ())}
        self.schedulers = [weakref.ref(s) for s in every if id(s) not in inside]

    def _forgotten(self, optimizer: Any) -> bool:
        """Whether ``optimizer`` holds parameters of the model and is not watched."""
        ids = {id(p) for group in optimizer.param_groups for p in group["params"]}
        known = any(optimizer is o for o in self.session.optimizers)
        return not known and bool(ids & self.session.names.keys())

    def _beside(self, view: WatchedStep, rate: float) -> None:
        """A rate that is written where no optimizer of torch reads it."""
        optimizer: Any = view.optimizer
        if not type(optimizer).__module__.startswith("torch.optim"):
            return
        words = ("learning_rate", "learningrate", "learning rate", "rate", "lrate")
        written = {
            "optimizer.lr": vars(optimizer).get("lr"),
            "optimizer.learning_rate": vars(optimizer).get("learning_rate"),
            'optimizer.defaults["lr"]': optimizer.defaults.get("lr"),
            **{
                f'param_groups[0]["{key}"]': value
                for key, value in optimizer.param_groups[0].items()
                if str(key).lower() in words
            },
        }
        now = (rate, written)
        if self.beside is None:
            self.beside = now
            return
        first, before = self.beside
        for name, value in written.items():
            told = isinstance(value, int | float) and value != before.get(name) and value != rate
            if told and rate == first:
                self.report(
                    f"{name} was set to {value:.3g}, which has no effect: the rate in use is still "
                    f"{rate:.3g}.",
                    'Set it for every group: for group in optimizer.param_groups: group["lr"] = '
                    "rate.",
                    rule="rate_set_without_effect",
                    severity="error",
                    measured={"rate": rate},
                    threshold={"rate": float(value)},
                    confidence=0.98,
                )

    def _factor(self, view: WatchedStep, scheduler: Any, calls: int) -> None:
        """A function that returns the rate where its factor is asked for."""
        base = float(scheduler.base_lrs[0])
        if not 0 < base < 0.3 or self.first != self.highest or calls < 2 or view.number < 20:
            return
        factor = self.highest / base
        if 0.2 * base < factor < 1.05 * base:
            self.report(
                f"LambdaLR multiplies the optimizer's rate ({base:.3g}) by its function's value, "
                f"at most {factor:.3g}: that looks like a rate, not a factor; the rate in use was "
                f"{self.highest:.3g} at most.",
                "Return a factor (1 leaves the rate as it is), or give the optimizer lr=1.",
                rule="schedule_factor_is_a_rate",
                severity="error",
                measured={"factor": factor},
                threshold={"factor": 1.0},
                confidence=0.9,
            )

    def _collapsed(self, view: WatchedStep, rate: float) -> None:
        if rate > 2e-3 * self.highest or (rate <= 0 and view.number < 3):
            self.fell_at = None
            return
        if self.fell_at is None:
            self.fell_at = view.number
        since = view.number - self.fell_at
        if since < 15 or since < self.fell_at / 2 or not self.changes:
            return
        self.report(
            f"The rate has fallen from {self.highest:.3g} to {rate:.3g} by step {self.fell_at}: "
            f"the last {since} steps changed almost nothing.",
            "Call scheduler.step() once per epoch if the schedule is in epochs, or lengthen it.",
            rule="rate_collapsed",
            measured={"rate": rate},
            threshold={"rate": 2e-3 * self.highest},
            confidence=0.95,
        )

    def _rising(self, view: WatchedStep, rate: float) -> None:
        changes = list(self.changes)
        if len(changes) < 3 or any(new < old for _, old, new in changes):
            return
        gaps = [b[0] - a[0] for a, b in itertools.pairwise(changes)]
        ratios = [new / old for _, old, new in changes if old > 0]
        if len(ratios) < 3:
            return
        last = [self.first_ratio, ratios[len(ratios) // 2], *ratios[-3:]]
        growth = [r - 1 for r in last]  # constant for a geometric rise, falling for a linear one
        constant = min(growth) > 1e-3 and max(growth) / min(growth) < 1.1
        initial = float(view.optimizer.param_groups[0].get("initial_lr", math.inf))
        per_epoch = sorted(gaps)[len(gaps) // 2] >= 5
        above = rate > 1.9 * initial
        if per_epoch and ((constant and min(last) > 1.02) or above):
            self._say_rising(view, rate, len(changes))
        elif constant and not per_epoch and len(changes) >= 20:
            if self.epochs >= 3 and rate > 2 * self.first:
                self._say_rising(view, rate, len(changes))
            elif rate > 10 * self.first:
                self.report(
                    f"The rate grows by {last[-1] - 1:.1%} at every step (from {self.first:.3g} to "
                    f"{rate:.3g}): this looks like a range test.",
                    "If it is one, nothing is wrong.",
                    rule="rate_range_test",
                    severity="note",
                    measured={"ratio": last[-1]},
                )

    def _say_rising(self, view: WatchedStep, rate: float, count: int) -> None:
        self.report(
            f"The rate only rises: {count} changes, from {self.first:.3g} to {rate:.3g}.",
            "A factor per epoch (gamma) below 1 lowers the rate; a warm-up should end.",
            measured={"rate": rate, "rises": count},
            threshold={"rate": self.first, "rises": 3},
        )

    def _warmup(self, view: WatchedStep, rate: float) -> None:
        target = float(view.optimizer.param_groups[0].get("initial_lr", 0.0))
        changes = list(self.changes)
        if len(changes) < 3 or target <= 0 or rate >= 0.5 * target:
            return
        if any(new < old for _, old, new in changes):
            return
        steps = view.number + 1
        slope = (rate - self.first) / max(changes[-1][0], 1)
        if slope <= 0:
            return
        total = (target - self.first) / slope
        gaps = [b[0] - a[0] for a, b in itertools.pairwise(changes)]
        gap = sorted(gaps)[len(gaps) // 2]
        per_epoch = gap >= 5
        if per_epoch:
            epochs = total / gap
            wrong = epochs > 30
        else:
            epochs = total / (steps / self.epochs) if self.epochs >= 3 else 0.0
            wrong = epochs > 50
        horizon = self.session.horizon
        if horizon is not None and steps >= 20:
            wrong |= total > horizon
        if wrong:
            self.report(
                f"At this pace the warm-up ends after {total:.0f} steps"
                + (f" ({epochs:.0f} epochs)" if epochs else "")
                + f": the rate is {rate:.3g}, its target {target:.3g}.",
                "Count the warm-up in the unit in which scheduler.step() is called.",
                rule="warmup_never_ends",
                measured={"steps": total},
                threshold={"steps": float(horizon or steps)},
                confidence=0.9,
            )

    def _scheduler(self, view: WatchedStep, scheduler: Any) -> None:
        calls = getattr(scheduler, "last_epoch", None)
        kind = type(scheduler).__name__
        if not isinstance(calls, int):
            return
        if calls <= 0:
            if kind != "ReduceLROnPlateau" and (self.epochs >= 3 or view.number >= 400):
                self.report(
                    f"{kind} was made but its step() was not called in {view.number + 1} steps.",
                    "Call scheduler.step() after every step or epoch, as the schedule counts.",
                    rule="scheduler_never_stepped",
                    measured={"calls": 0},
                    threshold={"calls": 1},
                    confidence=0.97,
                )
            return
        self._other(scheduler, view)
        if kind == "LambdaLR":
            self._factor(view, scheduler, calls)
        steps, before = self.began.setdefault(id(scheduler), (view.number, calls))
        taken, made = view.number - steps, calls - before
        if taken >= 20 and made > 1.5 * taken + 2 and not _several_processes():
            self._unit(
                f"{kind} was stepped {made} times in {taken} steps of the optimizer: it runs "
                f"{made / taken:.2g} times as fast as the training.",
                {"calls": made},
                {"calls": taken},
            )
        interval = (view.number + 1) / calls
        length = getattr(scheduler, "T_max", None)
        if kind == "CosineAnnealingLR" and isinstance(length, int) and length > 0:
            low = getattr(scheduler, "eta_min", 0.0)
            base = max(scheduler.base_lrs)
            again = view.rates[0] > low + 0.05 * (base - low)
            if calls > 1.1 * length + 1 and again:
                self._unit(
                    f"The cosine schedule ended after {length} calls of step(); there were "
                    f"{calls}, and the rate rises again.",
                    {"calls": calls},
                    {"calls": length},
                )
            per_epoch = interval >= 5 and calls >= 3
            if per_epoch and length >= 300 and length % round(interval) == 0:
                self._slow(kind, calls, length, interval)
        total = getattr(scheduler, "total_steps", None)
        per_epoch = interval >= 5 and calls >= 3
        if kind == "OneCycleLR" and isinstance(total, int) and per_epoch and total >= 100:
            self._slow(kind, calls, total, interval)
        if kind in ("LinearLR", "PolynomialLR", "ConstantLR"):
            iterations = getattr(scheduler, "total_iters", 0)
            if interval >= 5 and calls >= 3 and iterations >= 300:
                self._slow(kind, calls, iterations, interval)

    def _other(self, scheduler: Any, view: WatchedStep) -> None:
        """A schedule whose optimizer never steps."""
        try:
            its = unwrap_optimizer(getattr(scheduler, "optimizer", None))
        except TypeError:
            return
        known = any(its is o for o in self.session.optimizers)
        known |= any(ref() is its for ref, _ in self.session.other_optimizers.values())
        if not known and view.number >= 10:
            self.report(
                f"{type(scheduler).__name__} was made for another optimizer object, which never "
                "steps: it changes no rate that is used.",
                "Make the scheduler after the optimizer, from the one that steps.",
                rule="scheduler_of_other_optimizer",
                severity="error",
                measured={"steps": 0},
                confidence=0.97,
            )

    def _slow(self, kind: str, calls: int, length: int, interval: float) -> None:
        self._unit(
            f"{kind} is {length} calls long but is stepped once in {interval:.0f} steps: it would "
            f"end after {length * interval:.0f} steps.",
            {"calls": calls, "interval": interval},
            {"calls": length, "interval": 1},
        )

    def _unit(self, sentence: str, measured: dict[str, float], threshold: dict[str, float]) -> None:
        self.report(
            sentence,
            "Count the schedule in the unit in which scheduler.step() is called (steps or epochs).",
            rule="schedule_in_wrong_unit",
            measured=measured,
            threshold=threshold,
            confidence=0.9,
        )


def _several_processes() -> bool:
    """Whether ranks share the work: Accelerate steps a schedule once for each of them."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


RULES: tuple[type[Rule], ...] = (Schedule,)
