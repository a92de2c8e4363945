"""Initialization: units that start equal, weights that are zero, a first loss that is too high."""

from __future__ import annotations

import math

from torch import Tensor, nn

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, WatchedStep

__all__ = ["RULES"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Symmetric(Rule):
    """Units of a layer that are copies of each other and stay so."""

    name = "symmetric_units"
    family = "initialization"
    severity = "error"
    exact = True
    also = ("zero_weights",)
    AT = 6

    def __init__(self) -> None:
        super().__init__()
        self.suspects: list[tuple[str, Tensor]] | None = None
        self.done = False

    def forward(self, forward: Forward) -> None:
        """Find layers whose rows are equal before the first step."""
        if self.suspects is not None or not forward.grad:
            return
        self.suspects = []
        if self.session.step > 0:
            return
        for name, module in self.session.model.named_modules():
            weight = getattr(module, "weight", None)
            if (
                isinstance(module, LAYERS)
                and isinstance(weight, Tensor)
                and weight.requires_grad
                and weight.shape[0] > 1
                and _equal_rows(weight)
            ):
                self.suspects.append((f"{name}.weight".lstrip("."), weight))
        equal = [n for n, w in self.suspects if bool((w != 0).any()) and w.shape[1] > 1]
        if equal:
            self.report(
                f"All units of {len(equal)} layers start with equal weights: they compute the same "
                "up to their bias.",
                "Use a random initialization (nn.init.kaiming_uniform_, xavier_uniform_).",
                where=equal,
                measured={"layers": len(equal)},
                threshold={"layers": 0},
            )

    def after_step(self, view: WatchedStep) -> None:
        """Rows that are still equal after a few steps compute the same forever."""
        if self.done or view.index or view.number < self.AT or not self.suspects:
            return
        self.done = True
        still = [(n, w) for n, w in self.suspects if w.requires_grad and _equal_rows(w, 1e-4)]
        if not still:
            return
        zero = [n for n, w in still if not bool((w != 0).any())]
        names = [n for n, _ in still]
        self.report(
            f"All units of {len(still)} layers are equal after {view.number} steps"
            + (f" ({len(zero)} layers are all zero)" if zero else "")
            + ": they compute the same and get the same gradient.",
            "Use a random initialization (nn.init.kaiming_uniform_, xavier_uniform_).",
            rule="zero_weights" if len(zero) == len(still) else None,
            where=names,
            measured={"layers": len(still)},
            threshold={"layers": 0},
        )


def _equal_rows(weight: Tensor, tolerance: float = 0.0) -> bool:
    rows = weight.detach().reshape(weight.shape[0], -1)
    if rows.shape[1] == 1 and weight.ndim > 2:
        return False  # one weight per channel, as in a depthwise filter of one tap
    if tolerance == 0:
        return bool((rows == rows[:1]).all())
    spread = float((rows - rows[:1]).abs().max())
    return spread <= tolerance * max(float(rows.abs().max()), 1e-12)


class InitialLoss(Rule):
    """A first loss far above that of guessing."""

    name = "initial_loss_high"
    family = "initialization"

    def __init__(self) -> None:
        super().__init__()
        self.done = False

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Cross-entropy of the first batch against the logarithm of the number of classes."""
        if self.done or self.session.step > 0:
            return
        self.done = True
        form = self.session.form(forward, gradient)
        if form.kind not in ("cross_entropy", "nll"):
            return
        classes = form.logits.shape[1]
        loss, guess = form.loss, math.log(classes)
        if loss > 3 * guess and loss > guess + 2:
            scale = float(form.logits.std())
            self.report(
                f"The loss begins at {loss:.3g}; guessing among {classes} classes has "
                f"{guess:.3g}. The outputs have standard deviation {scale:.3g}.",
                "Scale the last layer down (its initial outputs should be small), or normalize "
                "the inputs.",
                measured={"loss": loss},
                threshold={"loss": 3 * guess},
            )


RULES: tuple[type[Rule], ...] = (Symmetric, InitialLoss)
