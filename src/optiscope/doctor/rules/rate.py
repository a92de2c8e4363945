"""Rate: too small, too large."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from optiscope.doctor.rule import Rule
from optiscope.doctor.rules.loss_form import one_weight
from optiscope.monitor.events import Forward, LossCall, WatchedStep
from optiscope.monitor.probe import loss_at, rows_of

__all__ = ["RULES"]


class TooSmall(Rule):
    """Updates that could be 64 times as long, on other data than they were made from."""

    name = "rate_too_small"
    family = "rate"
    FACTOR = 64
    PROBES = 4
    SAMPLES = 64

    def __init__(self) -> None:
        super().__init__()
        self.other: Forward | None = None
        self.latest: Forward | None = None
        self.helped = 0
        self.done = False
        self.probed = -10
        self.wait = 10
        self.rate = math.inf
        self.guess: float | None = None

    def loss(self, call: LossCall) -> None:
        """Note once what guessing would cost: a loss far below it is that of a trained network."""
        if self.guess is not None or call.step or call.prediction is None or call.target is None:
            return
        if isinstance(call.criterion, nn.MSELoss) and call.target.numel() > 1:
            self.guess = float(call.target.double().var())
        elif isinstance(call.criterion, nn.CrossEntropyLoss) and call.prediction.ndim > 1:
            self.guess = math.log(call.prediction.shape[1])

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Keep the batches of this step and the one before, with labels recovered if need be."""
        if self.done or not forward.training or forward.in_step:
            return
        if forward.target is None and self.session.loss_function is None:
            labels = self.session.labels(forward, gradient)
            known = self.session.form_kind == "cross_entropy"
            if labels is not None and known and len(labels) == forward.size:
                forward.target = labels
        if forward is not self.latest:
            self.other, self.latest = self.latest, forward

    def wants_before(self, number: int) -> bool:
        """While the loss has hardly moved: the update of a step that is to be lengthened."""
        if self.done or not 40 <= number <= 1000 or number - self.probed < self.wait:
            return False
        fall = self._fall()
        return fall is not None and fall <= 0.03

    def after_step(self, view: WatchedStep) -> None:
        """Probe at some steps while the loss has hardly moved."""
        if self.done or view.index or not view.before or view.closure or view.number < 40:
            return
        if view.number > 1000:
            self._stop()
            return
        fall = self._fall()
        if fall is None or view.number - self.probed < (self.wait if view.number < 200 else 50):
            return
        if fall > 0.03:
            if fall > 0.15:
                self._stop()
            self.helped = 0
            return
        other = self.other
        alone = len(self.session.steps) == 1 and not self.session.other_optimizers
        if other is None or not other.args or not alone:
            return  # with an adversary a loss that stays is no fault
        rising = view.rates[0] > self.rate * (1 + 1e-9)
        self.rate = view.rates[0]
        if rising or _warming_up(view) or sum(f.grad for f in view.forwards) > view.accumulations:
            return
        self.probed = view.number
        small = rows_of(other, self.SAMPLES)
        if small is None:
            return
        updates = {
            view.name(p): view.updates[id(p)]
            for p in view.parameters
            if id(p) in view.updates and id(p) in view.names
        }
        values = dict(view.model.named_parameters())
        here = {n: values[n].detach() for n in updates if n in values}
        base, near, far = (
            loss_at(
                self.session,
                small,
                small.target,
                shifted={n: here[n].add(updates[n], alpha=factor - 1) for n in here},
            )
            for factor in (1, self.FACTOR / 8, self.FACTOR)
        )
        if base is None or near is None or far is None or not math.isfinite(base):
            self._stop()
            return
        gain = base - far  # along a slope eight times as much as after an eighth of the way
        better = gain > 1e-6 * abs(base) and gain > 3 * (base - near)
        self.helped = self.helped + 1 if better else 0
        self.wait = 10 if better and self.helped < self.PROBES else min(2 * self.wait, 320)
        if self.helped >= self.PROBES:
            self.report(
                f"The rate is too small: after {view.number + 1} steps the loss has fallen by "
                f"{max(fall, 0.0):.1%}, and updates {self.FACTOR} times as long still lower the "
                "loss of another batch.",
                f"Raise the rate (now {view.rates[0]:.3g}) by a factor of 10 to {self.FACTOR}.",
                measured={"fall": fall, "helped": self.helped},
                threshold={"fall": 0.03, "helped": self.PROBES},
            )

    def _fall(self) -> float | None:
        values = [v for _, v in self.session.loss_values if math.isfinite(v)]
        if len(values) < 30:
            return None
        first = sum(values[:10]) / 10
        third = len(values) // 3
        begun, ended = sum(values[:third]), sum(values[-third:])
        if first <= 0 or begun <= 0:
            return None
        if self.guess is not None and first < 0.3 * self.guess:
            return 1.0  # tuned further from where it was good: small steps are meant
        return 1 - min(
            sum(values[-10:]) / 10 / first, ended / begun
        )  # ten are few where it is noisy

    def _stop(self) -> None:
        self.done = True
        self.other = self.latest = None


def _warming_up(view: WatchedStep) -> bool:
    group: dict[str, Any] = view.optimizer.param_groups[0]
    target = group.get("initial_lr")
    return bool(target and float(group["lr"]) < 0.5 * float(target))


class TooLarge(Rule):
    """A loss that stays above where it began."""

    name = "rate_too_large"
    family = "rate"
    compares_weights = True
    severity = "error"

    def __init__(self) -> None:
        super().__init__()
        self.guess: float | None = None
        self.scale: float | None = None
        self.count = 0
        self.update: float | None = None

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Note the form of the loss once."""
        if self.guess is None and self.session.step == 0:
            form = self.session.form(forward, gradient)
            plain = form.kind in ("cross_entropy", "nll") and one_weight(form)  # no returns
            if plain and form.logits.shape[1] > 2:
                self.guess = math.log(form.logits.shape[1])

    def loss(self, call: LossCall) -> None:
        """Note the scale of regression targets."""
        if isinstance(call.criterion, nn.MSELoss) and call.target is not None and call.step < 3:
            size = float(call.target.double().square().mean())
            if size > 0:  # residuals against zero have no scale
                self.scale = max(self.scale or 0.0, size)

    def after_step(self, view: WatchedStep) -> None:
        """Compare recent losses with the first."""
        if view.index or view.closure:
            return
        if view.look and view.number <= 3 and view.before:
            weights = sum(v * v for v in view.weight_norms.values()) ** 0.5
            change = sum(v * v for v in view.update_norms.values()) ** 0.5
            count = sum(p.numel() for p in view.parameters)
            # a share of the norm says nothing of weights that begin at zero
            if weights > 0 and change > 0.05 * math.sqrt(count):
                self.update = max(self.update or 0.0, change / weights)
        if not view.tick or view.number < 20 or view.number > 2000:
            return
        values = [v for _, v in self.session.loss_values]
        finite = [v for v in values if math.isfinite(v)]
        if len(finite) < 15 or (self.guess is None and self.scale is None):
            return
        first = min(finite[:2])
        recent = sum(finite[-10:]) / min(10, len(finite))
        if self.guess is not None:
            peak = max(finite[:40])
            stays = recent > 1.3 * first and recent > 1.5 * self.guess
            broke = peak > 10 * max(first, self.guess) and recent > 0.95 * first
            broke |= (self.update or 0.0) > 0.5 and recent > 0.9 * first
        else:
            assert self.scale is not None
            stays = recent > 3 * first and recent > 5 * self.scale
            broke = False
            peak = max(finite)
        self.count = self.count + 1 if stays or broke else 0
        if self.count >= 2:
            update = "" if self.update is None else (
                f" The first updates changed the weights by {self.update:.0%} of their norm."
            )  # fmt: skip
            self.report(
                f"The loss is above where it began: {first:.3g} at first, {recent:.3g} now, "
                f"{peak:.3g} at its highest.{update}",
                f"Lower the rate (now {view.rates[0]:.3g}) by a factor of 10 or more, or warm up.",
                measured={"loss": recent, "first loss": first},
                threshold={"loss": 1.3 * first},
            )


RULES: tuple[type[Rule], ...] = (TooSmall, TooLarge)
