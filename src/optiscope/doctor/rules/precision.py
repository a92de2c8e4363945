"""Precision: updates that are rounded away, loss scaling that is left in or missing."""

from __future__ import annotations

import math
from collections import deque

import torch

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, WatchedStep, at_looks

__all__ = ["RULES"]


class UpdateLost(Rule):
    """Updates too small for the precision of the weights."""

    name = "update_lost"
    family = "precision"
    compares_weights = True
    severity = "error"
    LOOKS = 4

    def __init__(self) -> None:
        super().__init__()
        self.shares: deque[float] = deque(maxlen=self.LOOKS)

    @at_looks
    def after_step(self, view: WatchedStep) -> None:
        """Share of weights with a gradient that did not change in any bit."""
        if not view.look or not view.before or view.index:
            return
        same = total = 0
        low = False
        for p in view.with_gradient:
            change = view.updates.get(id(p))
            if change is None or p.ndim < 2 or p.grad is None:
                continue
            if p.dtype not in (torch.bfloat16, torch.float16):
                continue
            low = True
            used = p.grad != 0
            total += int(used.sum())
            same += int((used & (change == 0)).sum())
        if not low or total < 32 or all(r == 0 for r in view.rates):
            return
        self.shares.append(same / total)
        if len(self.shares) == self.LOOKS and sorted(self.shares)[self.LOOKS // 2] > 0.5:
            share = sorted(self.shares)[self.LOOKS // 2]
            self.report(
                f"{share:.0%} of the weights with a gradient did not change: their updates are "
                "smaller than the rounding of their precision.",
                "Keep weights in float32 (autocast does), or use stochastic rounding.",
                measured={"share": share},
                threshold={"share": 0.5},
                confidence=0.95,
            )


class LossScale(Rule):
    """A loss scale that is still in the gradients, or missing where it is needed."""

    name = "loss_scale_left_in"
    family = "precision"
    severity = "error"
    exact = True
    also = ("fp16_without_loss_scale",)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.half = 0

    def before_step(self, view: WatchedStep) -> None:
        """The sentinel's gradient is as large as it arrived although the loss was scaled."""
        calls = [c for c in view.losses if c.scale is not None]
        if not calls or view.closure or view.accumulations != 1 or view.index:
            return
        scale = abs(calls[-1].scale or 0.0)
        forward = calls[-1].forward
        half = forward is not None and forward.autocast == torch.float16
        self.half = self.half + 1 if half and scale <= 1 else 0
        if self.half >= 5:
            self.report(
                "The model runs in float16 and the loss is not scaled: small gradients become "
                "zero.",
                "Use torch.amp.GradScaler, or bfloat16.",
                rule="fp16_without_loss_scale",
                severity="warning",
                measured={"scale": scale},
                threshold={"scale": 256},
            )
        if scale < 1024 or view.sentinel is None or view.sentinel.grad is None:
            self.count = 0
            return
        if not view.fresh_norm or not math.isfinite(view.fresh_norm):
            return  # the scaler writes into the gradient without a new version: compare values
        untouched = float(view.sentinel.grad.norm()) > 0.5 * view.fresh_norm
        fused = getattr(view.optimizer, "grad_scale", None) is not None
        self.count = self.count + 1 if untouched and not fused else 0
        if self.count >= 3:
            self.report(
                f"The loss is scaled by {scale:g} and the gradients were not divided by it before "
                "the step.",
                "Call scaler.step(optimizer) and scaler.update() instead of optimizer.step().",
                measured={"scale": scale},
                threshold={"scale": 1.0},
            )


class Confused(Rule):
    """Settings of an optimizer that are their own complement."""

    name = "adam_betas_confused"
    family = "rate"
    exact = True
    also = (
        "momentum_too_large", "adam_eps_underflows", "adam_eps_too_large", "group_rates_far_apart",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.done = False
        self.small: deque[float] = deque(maxlen=4)

    @at_looks
    def forward(self, forward: Forward) -> None:
        """Look once at the settings of every optimizer."""
        if self.done or not forward.grad:
            return
        self.done = True
        for optimizer in self.session.optimizers:
            for group in optimizer.param_groups:
                self._group(group)
            self._apart([float(g["lr"]) for g in optimizer.param_groups if "lr" in g])

    def _apart(self, rates: list[float]) -> None:
        positive = [r for r in rates if r > 0]
        if len(positive) > 1 and max(positive) >= 1e4 * min(positive):
            self.report(
                f"The rates of the parameter groups lie between {min(positive):.3g} and "
                f"{max(positive):.3g}: some groups hardly move.",
                "Look at the rate of each group; fine-tuning uses factors of 10 to 100.",
                rule="group_rates_far_apart",
                measured={"ratio": max(positive) / min(positive)},
                threshold={"ratio": 1e4},
                confidence=0.85,
            )

    def after_step(self, view: WatchedStep) -> None:
        """Share of weights whose second moment is smaller than eps."""
        group = view.optimizer.param_groups[0]
        eps, betas = group.get("eps"), group.get("betas")
        if not view.look or view.index or not isinstance(eps, float) or eps < 1e-2:
            return
        if not isinstance(betas, tuple) or not 20 <= view.number <= 500:
            return
        below = total = 0.0
        for p in view.with_gradient:
            square = view.optimizer.state.get(p, {}).get("exp_avg_sq")
            if square is not None:
                corrected = (square / (1 - betas[1] ** (view.number + 1))).sqrt()
                below += float((corrected < eps).sum())
                total += p.numel()
        self.small.append(below / max(total, 1))
        values = [v for _, v in self.session.loss_values]
        slow = len(values) >= 30 and sum(values[-10:]) > 0.8 * sum(values[:10])
        if len(self.small) == 4 and min(self.small) > 0.95 and slow:
            self.report(
                f"eps is {eps:g}, more than the root of the second moment of {min(self.small):.0%} "
                "of the weights: the step is the gradient times rate / eps, not adapted.",
                "Use the default eps (1e-8), or a larger rate.",
                rule="adam_eps_too_large",
                measured={"share": min(self.small)},
                threshold={"share": 0.95},
                confidence=0.9,
            )

    def _group(self, group: dict[str, object]) -> None:
        betas = group.get("betas")
        if isinstance(betas, tuple | list) and len(betas) >= 2:
            first, second = betas[0], betas[1]
            if isinstance(second, int | float) and second < 0.5:
                self.report(
                    f"betas are {first}, {second}: the second moment is an average of about "
                    f"{1 / max(1 - second, 1e-9):.1f} steps.",
                    "betas are the weights of the past: (0.9, 0.999), not (0.1, 0.001).",
                    measured={"beta2": float(second)},
                    threshold={"beta2": 0.5},
                    confidence=0.95,
                )
            elif (
                isinstance(first, int | float)
                and isinstance(second, int | float)
                and first >= 0.99
                and second < first - 5e-3
            ):
                self.report(
                    f"betas are {first}, {second}: the mean of gradients reaches over "
                    f"{1 / max(1 - first, 1e-9):.0f} steps, the mean of squares over "
                    f"{1 / max(1 - second, 1e-9):.0f}.",
                    "The first beta is that of the mean: (0.9, 0.999), not (0.999, 0.9).",
                    measured={"beta1": float(first)},
                    threshold={"beta1": float(second)},
                    confidence=0.95,
                )
            eps = group.get("eps")
            parameters = group.get("params")
            half = isinstance(parameters, list) and any(
                p.dtype == torch.float16 for p in parameters
            )
            if half and isinstance(eps, float) and 0 < eps < 6e-8:
                self.report(
                    f"Weights are float16 and eps is {eps:g}, which is 0 in float16: a weight "
                    "whose gradient is 0 becomes nan.",
                    "Keep the weights in float32 (autocast does), or use eps=1e-4.",
                    rule="adam_eps_underflows",
                    measured={"eps": eps},
                    threshold={"eps": 6e-8},
                )
        momentum = group.get("momentum")
        if isinstance(momentum, int | float) and momentum >= 0.999:
            self.report(
                f"Momentum is {momentum}: gradients of "
                + ("all steps add up." if momentum >= 1 else "a thousand steps add up."),
                "Use 0.9 to 0.99.",
                rule="momentum_too_large",
                measured={"momentum": float(momentum)},
                threshold={"momentum": 0.999},
            )


RULES: tuple[type[Rule], ...] = (UpdateLost, LossScale, Confused)
