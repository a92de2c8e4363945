"""Checks that train a copy for a moment: whether one batch can be learned by heart."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from optiscope.doctor.context import Context, Skipped
from optiscope.doctor.finding import Finding
from optiscope.doctor.probe import class_entropy, has_class_axis, logits_of

__all__ = ["overfit"]

SAMPLES = 24
STEPS = 120
RATES = (3e-3, 3e-2, 3e-4)
LEFT = 0.3  # share of the loss that may be left


def overfit(context: Context) -> list[Finding]:
    """Whether Adam brings the loss of a few samples down, at one of three learning rates.

    Dropout is off. The loss counts against the smaller of its start and the loss of the best
    constant output, so that a bad start does not flatter; for classes, an accuracy of 0.98 passes.
    """
    inputs, targets = context.few(SAMPLES)
    probe = context.probe.copy()
    if not probe.trainable:
        raise Skipped("no parameter is trainable")
    with torch.no_grad():
        first = context.objective(probe(inputs, training=True, dropout=False), targets, inputs)
        second = context.objective(probe(inputs, training=True, dropout=False), targets, inputs)
    if not math.isfinite(float(first)):
        raise Skipped("the loss is not finite at the start")
    if abs(float(first) - float(second)) > 1e-3 * abs(float(first)) and not probe.has("batch_norm"):
        raise Skipped("the loss draws random numbers")
    if float(first) <= 0:
        raise Skipped("the loss has no lower bound at 0")
    limit = time.process_time() + 0.15 * context.seconds * torch.get_num_threads()
    best, accuracy, steps = math.inf, 0.0, 0
    reference = float(first)
    for rate in RATES:
        loss, correct, taken = _descend(context, inputs, targets, rate, limit, reference)
        best, accuracy, steps = min(best, loss), max(accuracy, correct), steps + taken
        if best <= LEFT * reference or accuracy >= 0.98:
            break
    context.measured["one batch, loss left"] = best / reference
    constant = _constant(targets, logits_of(context.probe(inputs, training=False)))
    if constant is not None:
        reference = min(reference, constant)
    if best <= LEFT * reference or accuracy >= 0.98 or steps < 2 * STEPS:
        return []
    return [
        Finding(
            "cannot_overfit",
            "gradient_flow",
            "error",
            f"{steps} steps on {SAMPLES} samples leave {best / reference:.0%} of the loss "
            f"({reference:.3g} to {best:.3g}).",
            "A sound network learns a few samples by heart: look at the loss, at activations after "
            "the last layer, at dead or frozen layers and at the labels.",
            measured={"left": best / reference},
            threshold={"left": LEFT},
            confidence=0.9,
        )
    ]


def _constant(targets: object, output: Tensor | None) -> float | None:
    """Cross entropy of the class shares of these targets, where they are classes."""
    if not has_class_axis(output, targets) or not isinstance(targets, Tensor):
        return None
    return class_entropy(targets.flatten()) or None


def _descend(
    context: Context, inputs: object, targets: object, rate: float, limit: float, reference: float
) -> tuple[float, float, int]:
    """Lowest loss, highest accuracy and steps taken by Adam from the model's own weights."""
    probe = context.probe.copy()
    optimizer = torch.optim.Adam([probe.weights[n] for n in probe.trainable], rate)
    best, accuracy = math.inf, 0.0
    for step in range(STEPS):
        with torch.enable_grad():
            output = probe(inputs, training=True, dropout=False)
            loss = context.objective(output, targets, inputs)
            if not loss.requires_grad:
                raise Skipped("the loss has no gradient")
            optimizer.zero_grad()
            loss.backward()
        value = float(loss.detach())
        if not math.isfinite(value):
            return best, accuracy, step
        best = min(best, value)
        logits = logits_of(output)
        if isinstance(targets, Tensor) and has_class_axis(logits, targets):
            assert logits is not None
            accuracy = max(accuracy, float((logits.argmax(1) == targets).float().mean()))
        if best <= 0.5 * LEFT * reference or (accuracy >= 0.98 and step > 3):
            return best, accuracy, step
        if time.process_time() > limit:
            return best, accuracy, step
        optimizer.step()
    return best, accuracy, STEPS
