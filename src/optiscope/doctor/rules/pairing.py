"""Pairing of inputs and targets: labels that change, targets that stay, targets in order."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, LossCall

if TYPE_CHECKING:
    from optiscope.monitor.session import Session

__all__ = ["RULES", "own_labels"]


def own_labels(session: Session, forward: Forward, gradient: Tensor) -> Tensor | None:
    """Class labels [B], one for each sample the model was called with; else None.

    Targets of the criterion count only where its prediction is the model's output: the labels of a
    contrastive loss are places in the batch.
    """
    out, target, prediction = forward.output, forward.target, forward.prediction
    if out is None or out.ndim != 2 or len(forward.inputs) != 1:
        return None
    if target is not None:
        direct = prediction is not None and prediction.data_ptr() == out.data_ptr()
        whole = not target.is_floating_point() and target.ndim == 1
        return target if direct and whole and len(target) == forward.size else None
    form = session.form(forward, gradient)
    if form.kind in ("cross_entropy", "nll") and len(form.labels) == forward.size:
        labels: Tensor = form.labels
        return labels
    return None


class LabelsChange(Rule):
    """A sample that has another label when it comes again."""

    name = "labels_change"
    family = "labels"
    severity = "error"
    exact = True
    SAMPLES = 4096
    ENOUGH = 100
    SHARE = 0.2

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.kept = self.known = 0
        self.sorted: tuple[Tensor, Tensor] | None = None
        self.again = self.other = 0
        self.numbers: bool | None = None
        self.done = False

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Keep the labels of the first samples; compare when samples come again."""
        rows = forward.rows
        if self.done or rows is None or forward.in_step or self.session.fingerprint.varying < 12:
            return
        if self.numbers is None:
            x = forward.input
            assert x is not None
            # rows of a few discrete values are equal by chance, whatever their labels
            self.numbers = x.is_floating_point() and len(x.detach()[:64].unique()) > 16
        if not self.numbers:
            self.done = True
            return
        labels = own_labels(self.session, forward, gradient)
        if labels is None or len(labels) != len(rows):
            return
        rows, labels = rows.cpu(), labels.detach().to("cpu", torch.int64)
        if self.kept < self.SAMPLES:
            self.rows.append(rows)
            self.labels.append(labels)
            self.kept += len(rows)
        self._compare(rows, labels)

    def _compare(self, rows: Tensor, labels: Tensor) -> None:
        if self.sorted is None or self.kept > 1.2 * self.known:
            order = torch.cat(self.rows).argsort(stable=True)
            self.sorted = torch.cat(self.rows)[order], torch.cat(self.labels)[order]
            self.known = self.kept
        known, old = self.sorted
        place = torch.searchsorted(known, rows).clamp_max(len(known) - 1)
        same = known[place] == rows
        self.again += int(same.sum())
        self.other += int((old[place] != labels)[same].sum())
        share = self.other / max(self.again, 1)
        if self.again >= 4 * self.ENOUGH and share == 0 and self.kept >= self.SAMPLES:
            self.done = True
        if self.other >= self.ENOUGH and share > self.SHARE:
            self.done = True
            self.report(
                f"{share:.0%} of the samples that came again had another label than before: inputs "
                "and labels are not paired by one index.",
                "Shuffle inputs and labels with one permutation, and draw labels once.",
                measured={"share": share},
                threshold={"share": self.SHARE},
            )


class TargetsRepeated(Rule):
    """Targets that stay from step to step while the inputs change, or come in order of size."""

    name = "targets_repeated"
    family = "labels"
    severity = "error"
    exact = True
    also = ("targets_sorted",)
    STEPS = 6
    BATCHES = 16

    def __init__(self) -> None:
        super().__init__()
        self.last: tuple[Tensor, Tensor] | None = None
        self.same = 0
        self.ranges: list[tuple[float, float]] = []

    def loss(self, call: LossCall) -> None:
        """Compare with the call before."""
        forward, target = call.forward, call.target
        if not call.grad or call.step > 200 or target is None or forward is None:
            return
        if forward.rows is None or forward.in_step or not 8 <= target.numel() <= 100_000:
            return
        if target.ndim == 0 or target.shape[0] != forward.size or call.target_grad:
            return
        self._order(target)
        known, self.last = self.last, (forward.rows, target)
        if (
            known is None
            or known[0].shape != forward.rows.shape
            or torch.equal(known[0], forward.rows)
        ):
            return
        equal = known[1].shape == target.shape and torch.equal(known[1], target)
        self.same = self.same + 1 if equal and _says_something(target) else 0
        if self.same >= self.STEPS:
            self.report(
                f"The targets were the same in {self.same + 1} steps running, and the inputs "
                "were not.",
                "Take the targets with the index of their inputs (y[i], not y[:n]); draw noise "
                "anew for each batch.",
                measured={"steps": self.same + 1},
                threshold={"steps": self.STEPS},
            )

    def _order(self, target: Tensor) -> None:
        """Batches of one number a sample that do not overlap and only rise, or only fall."""
        if len(self.ranges) >= self.BATCHES or not target.is_floating_point():
            return
        if target.numel() != target.shape[0]:
            self.ranges = [(0.0, 0.0)] * self.BATCHES
            return
        self.ranges.append((float(target.min()), float(target.max())))
        if len(self.ranges) < self.BATCHES:
            return
        pairs = list(itertools.pairwise(self.ranges))
        spread = any(low < high for low, high in self.ranges)
        rises = all(b[0] >= a[1] for a, b in pairs)
        falls = all(b[1] <= a[0] for a, b in pairs)
        if spread and (rises or falls) and self.ranges[0] != self.ranges[-1]:
            self.report(
                f"The targets of the first {self.BATCHES} batches only "
                f"{'rise' if rises else 'fall'}, from batch to batch: the data are sorted by "
                "target.",
                "Shuffle the training data (shuffle=True).",
                rule="targets_sorted",
                measured={"batches": self.BATCHES},
            )


def _says_something(target: Tensor) -> bool:
    """Whether equal targets in several batches need an explanation.

    Constants, places in the batch (contrastive losses) and patterns made by hand do not.
    """
    if target.is_floating_point():
        return len(target.reshape(-1)[:512].unique()) >= 8
    flat = target.reshape(-1)[:512]
    distinct = len(flat.unique())
    if distinct < 2 or distinct == len(flat):
        return False
    steps = flat[1:] - flat[:-1]
    if bool((steps >= 0).all()) or bool((steps <= 0).all()):
        return False
    period = int(flat.max() - flat.min()) + 1
    return period >= len(flat) or not torch.equal(flat[period:], flat[:-period])


RULES: tuple[type[Rule], ...] = (LabelsChange, TargetsRepeated)
