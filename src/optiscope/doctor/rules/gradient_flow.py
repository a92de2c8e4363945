"""Gradient flow: what happens to gradients between the backward pass and the step."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, WatchedStep, at_looks
from optiscope.monitor.probe import first_not_finite

__all__ = ["RULES"]


class NotCleared(Rule):
    """Backward passes add to the gradient of the step before."""

    name = "gradient_not_cleared"
    family = "gradient_flow"
    severity = "error"
    exact = True

    def after_step(self, view: WatchedStep) -> None:
        """Nobody cleared the sentinel's gradient at any accumulation since the last step."""
        if view.accumulations and view.uncleared == view.accumulations:
            self.report(
                "The backward pass added to the gradient of the step before: no step uses the "
                "gradient of its own batch.",
                "Call optimizer.zero_grad() once per step, before backward().",
                measured={"uncleared": view.uncleared, "accumulations": view.accumulations},
                threshold={"uncleared": 0},
            )


class Cleared(Rule):
    """Steps without any gradient."""

    name = "step_without_gradient"
    family = "gradient_flow"
    severity = "error"
    exact = True
    also = ("gradient_cleared_before_step",)

    def __init__(self) -> None:
        super().__init__()
        self.empty: dict[int, int] = {}

    def before_step(self, view: WatchedStep) -> None:
        """Three steps running with gradients that are all None or zero."""
        if view.closure:
            return
        if _any_gradient(view):
            self.empty[view.index] = 0
            return
        count = self.empty.get(view.index, 0) + 1
        self.empty[view.index] = count
        if count < 3:
            return
        backward = view.accumulations > 0
        self.report(
            "The optimizer stepped three times without a gradient: "
            + (
                "backward passes made gradients, and they were cleared before the step."
                if backward
                else "all gradients are None or zero."
            ),
            "Move optimizer.zero_grad() before backward()."
            if backward
            else "Call backward() before step(), and check that the optimizer holds the parameters "
            "that the loss depends on.",
            rule="gradient_cleared_before_step" if backward and self._cleared(view) else None,
            measured={"steps": count},
            threshold={"steps": 3},
        )

    def _cleared(self, view: WatchedStep) -> bool:
        """Whether the sentinel's gradient was changed after the last accumulation."""
        state = self.session._sentinels[view.index].state
        grad = None if view.sentinel is None else view.sentinel.grad
        if state is None:
            return False
        return grad is None or grad is not state[0] or grad._version != state[1]


def _any_gradient(view: WatchedStep) -> bool:
    """Whether any parameter has a gradient that is not zero; reads little in healthy runs."""
    sentinel = view.sentinel
    if view.number > 20 and not view.look:
        return sentinel is None or sentinel.grad is not None or bool(view.with_gradient)
    first = [] if sentinel is None else [sentinel]  # small, and usually enough
    for p in (*first, *view.parameters):
        grad = p.grad
        if grad is None:
            continue
        if grad.is_sparse or bool((grad != 0).any()):
            return True
    return False


class NeverStepped(Rule):
    """Many backward passes and no step of any optimizer."""

    name = "never_stepped"
    family = "gradient_flow"
    severity = "error"
    exact = True
    LIMIT = 50

    def __init__(self) -> None:
        super().__init__()
        self.at_step = 0
        self.backwards = 0

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Count backward passes since the last step."""
        if forward.in_step:
            return
        if self.session.step != self.at_step:
            self.at_step, self.backwards = self.session.step, 0
        self.backwards += 1
        self._judge()

    def forward(self, forward: Forward) -> None:
        """The same for losses whose gradient is not seen at the output."""
        if self.session.step == 0 and self.session.backwards_seen >= self.LIMIT:
            self.backwards = max(self.backwards, self.session.backwards_seen)
            self._judge()

    def _judge(self) -> None:
        if self.backwards < self.LIMIT or self.session.step or self.session.other_optimizers:
            return
        self.report(
            f"{self.backwards} backward passes and no step: the weights never change.",
            "Call optimizer.step() after backward().",
            measured={"backward passes": self.backwards},
            threshold={"backward passes": self.LIMIT},
        )


class StaleGradient(Rule):
    """A step that uses a gradient which the step before has already used."""

    name = "stale_gradient"
    family = "gradient_flow"
    severity = "error"
    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[int, int] = {}

    def before_step(self, view: WatchedStep) -> None:
        """No backward pass since the last step, and the gradient is still that one."""
        sentinel = self.session._sentinels[view.index]
        if view.closure or sentinel.total < 1 or view.number == 0 or view.accumulations:
            return
        state, parameter = sentinel.state, view.sentinel
        grad = None if parameter is None else parameter.grad
        if state is None or grad is None or grad is not state[0] or grad._version != state[1]:
            return
        if not bool((grad != 0).any()):
            return
        self.count[view.index] = self.count.get(view.index, 0) + 1
        if self.count[view.index] >= 2:
            self.report(
                "The optimizer stepped again with a gradient that it had already used: there was "
                "no backward pass in between.",
                "Call step() once per backward pass.",
                measured={"steps": self.count[view.index]},
                threshold={"steps": 0},
            )


class StepBeforeBackward(Rule):
    """Every step uses the gradient of the batch before its own."""

    name = "step_after_next_forward"
    family = "gradient_flow"
    severity = "warning"
    exact = True
    LIMIT = 20

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[int, int] = {}

    def before_step(self, view: WatchedStep) -> None:
        """The last forward of the window has not been differentiated, the one before has."""
        training = [f for f in view.forwards if f.grad]
        last = training[-1] if training else None
        late = (
            last is not None
            and not view.closure
            and len(self.session.steps) == 1
            and last.backwards == 0
            and last.training
            and view.number > 0
            and view.accumulations == 0
            and any(p.grad is not None for p in view.parameters)
        )
        count = self.count.get(view.index, 0) + 1 if late else 0
        self.count[view.index] = count
        if count >= self.LIMIT:
            self.report(
                "step() comes between the forward and the backward pass: each step uses the "
                "gradient of an earlier batch.",
                "The order is zero_grad(), forward, backward(), step().",
                measured={"steps": count},
                threshold={"steps": self.LIMIT},
            )


class GraphRetained(Rule):
    """Graphs of earlier steps are still alive: memory grows with every step."""

    name = "graph_retained"
    family = "memory"
    severity = "error"
    exact = True
    LIMIT = 24

    def after_step(self, view: WatchedStep) -> None:
        """More than LIMIT of the last 64 outputs still have their graph."""
        tokens = self.session.tokens
        if len(tokens) <= self.LIMIT or view.number % 4 or view.closure:
            return
        recent = sum(1 for f in view.forwards if f.grad)
        alive = sum(reference() is not None for _, reference in tokens)
        if alive > max(self.LIMIT, 2 * recent):
            self.report(
                f"The graphs of {alive} of the last {len(tokens)} forward passes are still in "
                "memory: something keeps their losses or outputs.",
                "Keep loss.item() or output.detach() instead of the tensor itself.",
                measured={"graphs": alive},
                threshold={"graphs": self.LIMIT},
            )


class AccumulationCleared(Rule):
    """Several backward passes a step, of which only the last one counts."""

    name = "accumulation_cleared"
    family = "gradient_flow"
    severity = "error"
    exact = True
    STEPS = 4

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def after_step(self, view: WatchedStep) -> None:
        """Each accumulation began with a cleared gradient, on batches of their own."""
        if view.closure or view.index or self.session.other_optimizers or view.number > 500:
            return
        if len(self.session.steps) > 1:
            return
        used = [f for f in view.forwards if f.backwards == 1 and not f.in_step]
        k = view.accumulations
        batches = {int(f.rows.sum()) for f in used if f.rows is not None} if k >= 2 else set()
        thrown = k >= 2 and view.uncleared == 0 and len(batches) == len(used) == k
        self.count = self.count + 1 if thrown else 0
        if self.count >= self.STEPS:
            self.report(
                f"{k} backward passes are made for each step, and gradients are cleared before "
                f"each of them: the step uses the last batch, {k - 1} are thrown away.",
                "Call optimizer.zero_grad() once per step, after optimizer.step().",
                measured={"backward passes": k, "used": 1},
                threshold={"used": k},
            )


class ChangedTooLate(Rule):
    """Gradients that are changed after the step that used them."""

    name = "gradient_changed_after_step"
    family = "gradient_flow"
    severity = "error"
    exact = True
    STEPS = 5

    def __init__(self) -> None:
        super().__init__()
        self.kept: tuple[Any, int] | None = None
        self.count = 0

    def after_step(self, view: WatchedStep) -> None:
        """Keep the gradient that was used, with its version."""
        parameter = view.sentinel
        grad = None if parameter is None else parameter.grad
        early = view.number < 200 and not view.index and not view.closure
        self.kept = (grad, grad._version) if grad is not None and early else None

    def before_step(self, view: WatchedStep) -> None:
        """It was changed in place, not to zero, and dropped before the next backward pass."""
        if view.index or self.kept is None:
            return
        (grad, version), self.kept = self.kept, None
        parameter = view.sentinel
        now = None if parameter is None else parameter.grad
        late = (
            now is not grad
            and now is not None
            and grad._version != version
            and view.accumulations == 1
            and not self.session.other_optimizers
            and len(self.session.steps) == 1
            and bool((grad != 0).any())
        )
        self.count = self.count + 1 if late else 0
        if self.count >= self.STEPS:
            self.report(
                "Gradients are changed after the step and cleared before the next one: clipping "
                "or scaling them there has no effect.",
                "Clip between backward() and optimizer.step().",
                measured={"steps": self.count},
                threshold={"steps": 0},
            )


class LayerGradients(Rule):
    """Gradients of layers that are zero, vanish or explode."""

    name = "gradient_vanishes"
    family = "gradient_flow"
    also = ("zero_gradient", "gradient_explodes")
    LOOKS = 6
    JUMP = 1e3

    def __init__(self) -> None:
        super().__init__()
        self.looks: deque[dict[str, tuple[float, float]]] = deque(maxlen=self.LOOKS)
        self.norms: list[tuple[int, float]] = []
        self.arrived: float | None = None

    @at_looks
    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """How much arrives at the output: what the layers make of it is their doing.

        The norm of a mean loss's gradient falls with the root of the number of its terms.
        """
        if self.session.step < 6:
            terms = gradient.numel() // (gradient.shape[-1] if gradient.ndim > 1 else 1)
            arrived = float(torch.linalg.vector_norm(gradient)) * terms**0.5
            self.arrived = max(arrived, self.arrived or 0.0)

    @at_looks
    def before_step(self, view: WatchedStep) -> None:
        """Compare layers with each other at looked-at steps."""
        if not view.look or view.closure or view.index:
            return
        total = view.gradient_norm
        self._jump(view, total)
        if view.number < 2:
            return
        norms = {
            view.name(p): (view.gradient_norms[view.name(p)], float(p.numel()) ** 0.5)
            for p in view.with_gradient
            if p.ndim > 1
        }
        if len(norms) < 2 or not math.isfinite(total) or total == 0:
            return
        self.looks.append(norms)
        if len(self.looks) == self.LOOKS:
            self._compare()

    def _jump(self, view: WatchedStep, total: float) -> None:
        """Norms a thousand times those of the first looks, or of all but a few."""
        if not math.isfinite(total):
            return
        self.norms.append((view.number, total))
        del self.norms[:-40]
        values = [v for _, v in self.norms]
        root = (sum(v * v for v in view.weight_norms.values())) ** 0.5
        # weights that begin at zero are no scale: a twentieth for each is the least
        root = max(root, 0.05 * math.sqrt(sum(p.numel() for p in view.with_gradient)))
        if view.number < 6 and self.arrived and total > self.JUMP * root * self.arrived:
            self._explodes(total, f"{self.arrived:.2g} arrives at the output, the weights'", root)
        if len(values) < self.LOOKS:
            return
        middle = sorted(values)[len(values) // 2]
        before = sorted(values[: self.LOOKS])[self.LOOKS // 2]
        usual = min(middle, before)
        stays = min(values[-2:]) > self.JUMP * usual
        jumps = sum(v > self.JUMP * usual for v in values) >= 3
        if usual > 0 and (stays or jumps) and total > max(root, 1.0):
            self._explodes(total, "their own before", usual)

    def _explodes(self, total: float, what: str, usual: float) -> None:
        self.report(
            f"Gradients explode: their norm is {total:.2g}, {what} {usual:.2g}.",
            "Clip their norm (clip_grad_norm_), lower the rate, normalize, or scale the initial "
            "weights down; for recurrent networks shorten the sequences.",
            rule="gradient_explodes",
            measured={"norm": total},
            threshold={"norm": self.JUMP * usual},
        )

    def _compare(self) -> None:
        names = set.intersection(*(set(look) for look in self.looks))
        zero = [n for n in names if all(look[n][0] == 0 for look in self.looks)]
        if zero:
            self.report(
                f"The gradient of {len(zero)} weights is exactly zero in {self.LOOKS} looks: "
                "they never change.",
                "Look at what follows these layers: units that are off for every sample, a factor "
                "of zero, weights that are all zero.",
                where=sorted(zero),
                rule="zero_gradient",
                measured={"gradient": 0.0},
                threshold={"gradient": 0.0},
            )
        root = {n: [look[n][0] / look[n][1] for look in self.looks] for n in names - set(zero)}
        if len(root) < 2:
            return
        highest = [max(values[i] for values in root.values()) for i in range(self.LOOKS)]
        tiny = [
            name
            for name, values in root.items()
            if all(v < 1e-6 * top for v, top in zip(values, highest, strict=True))
        ]
        if tiny:
            ratio = max(root[name][-1] / highest[-1] for name in tiny)
            self.report(
                f"Gradients vanish: per weight they are {ratio:.0e} times those of the layer with "
                "the largest.",
                "Use residual connections, normalization or an initialization that keeps the scale "
                "of the signal (He for relu, Xavier for tanh).",
                where=sorted(tiny),
                measured={"ratio": ratio},
                threshold={"ratio": 1e-6},
            )


class NotFinite(Rule):
    """The loss or the gradient is not a finite number."""

    name = "not_finite"
    family = "gradient_flow"
    severity = "error"
    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        self.seen = False
        self.last: Any = None
        self.bad = 0

    def forward(self, forward: Forward) -> None:
        """Keep the last finite training forward, to look where it begins."""
        if forward.grad:
            self.last = forward

    def after_step(self, view: WatchedStep) -> None:
        """Read the losses that have been settled since the last step."""
        values = self.session.loss_values
        for step, value in values.since(self.read):
            if not math.isfinite(value):
                self.bad += 1
                if self.bad >= 2 or not _scaled(self.session):
                    self._say(step, value)
                    break
        self.read = values.total
        if view.look and not self.seen and not view.closure and view.gradient_norms:
            wrong = [n for n, v in view.gradient_norms.items() if not math.isfinite(v)]
            if wrong:
                self.seen = True
                self.report(
                    f"The gradient of {len(wrong)} parameters is not finite, and the optimizer "
                    "stepped with it.",
                    "Look for a logarithm or a square root at zero, a division by zero, or a rate "
                    "that is too large; torch.autograd.detect_anomaly() names the operation.",
                    where=wrong,
                    measured={"parameters": len(wrong)},
                    threshold={"parameters": 0},
                )

    def _say(self, step: int, value: float) -> None:
        place = ""
        where: list[str] = []
        if not self.seen and self.last is not None and self.last.args:
            first = first_not_finite(self.session, self.last)
            if first:
                place = f" The first layer whose output is not finite is {first}."
                where = [first]
        self.seen = True
        self.report(
            f"The loss is {value}.{place}",
            "Look at the steps before: a rate that is too large, inputs that are not finite, or a "
            "logarithm or division at zero.",
            where=where,
            step=step,
            measured={"loss": value},
        )


def _scaled(session: Any) -> bool:
    """Whether the loss is scaled, so that single steps may overflow."""
    return any(call.scale is not None and abs(call.scale) >= 256 for call in session.losses)


class Clipping(Rule):
    """Clipping that shortens every gradient by a factor of ten or more."""

    name = "clipping_always"
    family = "gradient_flow"
    LOOKS = 6
    ENTRIES = 12_000

    def __init__(self) -> None:
        super().__init__()
        self.looks: deque[tuple[float, float]] = deque(maxlen=self.LOOKS)
        self.by_value: deque[tuple[float, float]] = deque(maxlen=self.LOOKS)

    @at_looks
    def before_step(self, view: WatchedStep) -> None:
        """A norm that is the same at every step although the fresh gradients differ."""
        if not view.look or view.closure or view.index or view.sentinel is None:
            return
        grad = view.sentinel.grad
        if grad is None or grad.is_sparse:
            return
        self._value(view)
        if not view.fresh_norm or view.accumulations != 1:
            return
        ratio = float(grad.norm()) / view.fresh_norm * _scale(view)
        self.looks.append((view.gradient_norm, ratio))
        norms = [norm for norm, _ in self.looks]
        ratios = sorted(r for _, r in self.looks)
        if len(norms) < self.LOOKS or min(norms) <= 0 or not math.isfinite(max(norms)):
            return
        constant = max(norms) / min(norms) < 1.01
        varies = ratios[-1] / max(ratios[0], 1e-300) > 1.02
        middle = ratios[len(ratios) // 2]
        if constant and varies and middle < 0.1:
            self.report(
                f"Every gradient is clipped to norm {norms[-1]:.3g}, {1 / middle:.0f} times "
                "shorter than it was: its length is never used.",
                f"Raise max_norm (the unclipped norm is about {norms[-1] / middle:.2g}), or "
                "unscale the gradients before clipping.",
                measured={"factor": middle, "norm": norms[-1]},
                threshold={"factor": 0.1},
            )

    def _value(self, view: WatchedStep) -> None:
        """Most entries at one and the same size: clipped by value."""
        largest = max(
            ((p.grad, p) for p in view.with_gradient if p.ndim > 1 and p.grad is not None),
            key=lambda pair: pair[0].numel(),
            default=None,
        )
        if largest is None:
            return
        entries = largest[0].detach().reshape(-1)
        size = entries[:: 1 + len(entries) // self.ENTRIES].abs()
        top = float(size.max())
        nonzero = float((size > 0).sum())
        if top > 0 and nonzero >= 64:
            share = float((size >= top * (1 - 1e-6)).sum()) / nonzero
            self.by_value.append((top, share))
        looks = list(self.by_value)
        tops = [t for t, _ in looks]
        if len(looks) == self.LOOKS and max(tops) / min(tops) < 1.0001:
            least = min(s for _, s in looks)
            if least > 0.5:
                self.report(
                    f"{least:.0%} of the gradient's entries are clipped to {tops[-1]:.3g}: only "
                    "their signs are left.",
                    "Raise clip_value, or clip the norm.",
                    measured={"share": least},
                    threshold={"share": 0.5},
                )


def _scale(view: WatchedStep) -> float:
    """The factor of the loss in the backward pass (a gradient scaler's, for one), 1 if unknown."""
    known = [abs(c.scale) for c in view.losses if c.scale]
    return known[-1] if known and known[-1] >= 16 else 1.0


RULES: tuple[type[Rule], ...] = (
    NotCleared,
    Cleared,
    AccumulationCleared,
    ChangedTooLate,
    NeverStepped,
    StaleGradient,
    StepBeforeBackward,
    GraphRetained,
    LayerGradients,
    NotFinite,
    Clipping,
)
