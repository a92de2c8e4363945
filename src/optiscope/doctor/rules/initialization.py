"""Initialization: units that start equal, weights that are zero, a first loss that is too high."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.doctor.rule import Rule, layer
from optiscope.monitor.events import Forward, WatchedStep

__all__ = ["RULES", "is_default"]

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
        if not torch.equal(rows[0], rows[-1]):
            return False
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
        if form.kind not in ("cross_entropy", "nll") or self._loaded():
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

    def _loaded(self) -> bool:
        """Whether frozen weights come from an earlier training: the first loss is not theirs."""
        frozen = [
            m.weight
            for m in self.session.model.modules()
            if isinstance(m, LAYERS) and not m.weight.requires_grad
        ]
        return any(not is_default(weight) for weight in frozen)


def is_default(weight: Tensor) -> bool:
    """Whether ``weight`` is uniform in +-1/sqrt(fan_in), as torch initializes it."""
    values = weight.detach().double()
    scaled = values.flatten() * values[0].numel() ** 0.5
    n = scaled.numel()
    if n < 32:
        return False
    largest = float(scaled.abs().max())
    # the largest of n uniform values lies within 12/n of 1, but for one time in 160,000
    if not 1 - max(12 / n, 1e-6) < largest <= 1 + 1e-5:
        return False
    deviation = float(scaled.std())
    return bool(abs(deviation - 3**-0.5) < 4 * (4 / 45) ** 0.5 / (2 * 3**-0.5 * n**0.5))


class MissingActivation(Rule):
    """Two linear layers with nothing between them: together they are one linear layer."""

    name = "activation_missing"
    family = "initialization"
    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.done = False

    def forward(self, forward: Forward) -> None:
        """Look once at the graph: a linear layer whose input is that of another."""
        if self.done or not forward.nodes or self.session.step > 5:
            return
        self.done = True
        pairs = []
        for node in forward.nodes:
            upper = _weight(node)
            lower = None if upper is None else _weight(_passed(node.next_functions[1][0]))
            if upper is None or lower is None or upper is lower:
                continue
            if not {id(upper), id(lower)} <= self.session.names.keys():
                continue  # another network that this one is fed by: a generator before its critic
            width = upper.shape[1]
            if lower.shape[0] == width and width >= min(lower.shape[1], upper.shape[0]):
                pairs.append((layer(self.session.names, lower), layer(self.session.names, upper)))
        if pairs:
            self.report(
                f"The linear layers {pairs[0][0]} and {pairs[0][1]} follow each other without an "
                "activation: together they are no more than one linear layer.",
                "Put an activation between them, or remove one of them.",
                where=[name for pair in pairs for name in pair],
                measured={"pairs": len(pairs)},
                threshold={"pairs": 0},
            )


def _weight(node: Any) -> Tensor | None:
    """The weight of a linear layer on [B, features], by its node."""
    if node is None or node.name() != "AddmmBackward0" or len(node.next_functions) < 3:
        return None
    transpose = node.next_functions[2][0]
    if transpose is None or transpose.name() != "TBackward0":
        return None
    leaf = getattr(transpose.next_functions[0][0], "variable", None)
    return leaf if isinstance(leaf, nn.Parameter) and leaf.ndim == 2 else None


def _passed(node: Any) -> Any:
    """The node behind views."""
    while node is not None and node.name() in ("ViewBackward0", "ReshapeAliasBackward0"):
        node = node.next_functions[0][0]
    return node


RULES: tuple[type[Rule], ...] = (Symmetric, InitialLoss, MissingActivation)
