"""Updates: their direction, whether they change the weights, and whether that lasts."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import WatchedStep, at_looks

__all__ = ["RULES"]


class Ascends(Rule):
    """Updates that go up the gradient."""

    name = "update_ascends"
    family = "gradient_flow"
    compares_weights = True
    severity = "error"
    LOOKS = 6

    def __init__(self) -> None:
        super().__init__()
        self.cosines: deque[float] = deque(maxlen=self.LOOKS)

    @at_looks
    def after_step(self, view: WatchedStep) -> None:
        """Cosine between update and gradient in several looks running."""
        if not view.look or view.closure or view.index or not view.before:
            return
        if view.optimizer.param_groups[0].get("maximize"):
            return
        product = update = gradient = 0.0
        for p in view.with_gradient:
            change = view.updates.get(id(p))
            if change is None or p.grad is None:
                continue
            grad = p.grad.detach()
            product += float(torch.dot(change.reshape(-1), grad.reshape(-1).to(change.dtype)))
            update += view.update_norms[view.name(p)] ** 2
            gradient += float(torch.linalg.vector_norm(grad)) ** 2
        if update == 0 or gradient == 0:
            return
        self.cosines.append(product / (update * gradient) ** 0.5)
        if len(self.cosines) == self.LOOKS and min(self.cosines) > 0.1:
            middle = sorted(self.cosines)[self.LOOKS // 2]
            self.report(
                "Every update points along the gradient instead of against it: the loss is "
                "maximized.",
                "Change the sign of the loss, of the rate or of the update.",
                measured={"cosine": middle},
                threshold={"cosine": 0.1},
            )


class WeightsUnchanged(Rule):
    """Steps that leave every weight as it was."""

    name = "weights_unchanged"
    family = "gradient_flow"
    compares_weights = True
    severity = "error"
    exact = True
    also = ("rate_zero",)
    LOOKS = 4

    def __init__(self) -> None:
        super().__init__()
        self.count = self.partly = 0
        self.still: set[str] = set()

    @at_looks
    def after_step(self, view: WatchedStep) -> None:
        """Gradients are there, and no parameter changed in any bit."""
        if not view.look or not view.before or view.closure or not view.with_gradient:
            return
        changed = any(norm > 0 for norm in view.update_norms.values())
        changed = changed or any(bool((u != 0).any()) for u in view.updates.values())
        if changed:
            self._some(view)
        if changed or not any(v > 0 for v in view.gradient_norms.values()):
            self.count = 0
            return
        self.count += 1
        zero = all(rate == 0 for rate in view.rates)
        early = zero and view.number < 1000 and self.count < 8
        if self.count >= self.LOOKS and not early:
            self.report(
                "The optimizer steps with gradients and changes no weight"
                + (": its rate is zero." if zero else "."),
                "Raise the rate." if zero else "Look at the rate and the precision of the weights.",
                rule="rate_zero" if zero else None,
                measured={"looks": self.count},
                threshold={"looks": self.LOOKS},
            )

    def _some(self, view: WatchedStep) -> None:
        """Matrices that stay although they have a gradient, while others move."""
        still = {
            view.name(p)
            for p in view.with_gradient
            if p.ndim > 1
            and p.dtype in (torch.float32, torch.float64)
            and view.gradient_norms[view.name(p)] > 0
            and view.update_norms.get(view.name(p)) == 0
            and not bool((view.updates.get(id(p), p) != 0).any())
        }
        self.still = still if self.partly == 0 else self.still & still
        self.partly = self.partly + 1 if self.still else 0
        if self.partly >= 2 * self.LOOKS and view.number >= 20:
            self.report(
                f"{len(self.still)} weight matrices have a gradient and do not change in any step, "
                "while others do.",
                "Look at the rate of their parameter group, and at what restores them.",
                severity="warning",
                where=sorted(self.still),
                measured={"looks": self.partly},
                threshold={"looks": 2 * self.LOOKS},
            )


class WeightsReset(Rule):
    """Weights that return to their first values."""

    name = "weights_reset"
    family = "gradient_flow"

    def __init__(self) -> None:
        super().__init__()
        self.first: Tensor | None = None
        self.parameter: Any = None
        self.moved = False
        self.resets = 0
        self.last = 0

    def before_step(self, view: WatchedStep) -> None:
        """The smallest weight matrix equals its first value although it has changed since."""
        if view.index or view.number > 5000:
            return
        if self.first is None:
            p = view.sentinel
            if p is None or view.number > 2 or p.device.type != "cpu":
                return
            self.parameter, self.first = p, p.detach().clone()
            return
        p = self.parameter
        if p.shape != self.first.shape:
            return
        same = torch.equal(p.detach(), self.first)
        if not same:
            self.moved = True
            return
        if self.moved and view.number - self.last > 1:
            self.moved = False
            self.resets += 1
            self.last = view.number
            self.report(
                f"The weights went back to their first values {self.resets} times: what was "
                "learned is thrown away.",
                "Build the model and load its weights once, before the loop.",
                severity="error" if self.resets >= 3 else "note",
                measured={"resets": self.resets},
                threshold={"resets": 3},
            )


class Undone(Rule):
    """Updates that are taken back before the next step."""

    name = "update_undone"
    family = "gradient_flow"
    severity = "error"
    STEPS = 10
    SHARE = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.before: tuple[int, Tensor] | None = None
        self.count = 0

    def before_step(self, view: WatchedStep) -> None:
        """Compare what moved a small parameter between two steps with the first of them."""
        if view.index or view.number > 200 or view.closure:
            return
        parameter, left = view.sentinel, view.left
        if parameter is None or left is None or parameter.shape != left.shape:
            self.before = None
            return
        now = parameter.detach()
        if self.before is not None and self.before[0] == view.number - 1:
            update, outside = (left - self.before[1]).double(), (now - left).double()
            size = float(update.square().sum())
            share = -float((update * outside).sum()) / size if size > 0 else 0.0
            across = float((outside + share * update).norm())
            back = share > self.SHARE and across < 0.3 * share * size**0.5
            self.count = self.count + 1 if back else 0
            if self.count >= self.STEPS:
                self.report(
                    f"Between steps the weights are moved back: {share:.0%} of the last update is "
                    f"undone before the next one, {self.count} times running.",
                    "Look at what is done with the weights after optimizer.step(): averages should "
                    "follow the weights, not the weights the averages.",
                    where=[view.name(parameter)],
                    measured={"share": share},
                    threshold={"share": self.SHARE},
                )
        self.before = (view.number, now.clone())


RULES: tuple[type[Rule], ...] = (Ascends, WeightsUnchanged, WeightsReset, Undone)
