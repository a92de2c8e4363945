"""Data: the order of batches, and samples that come twice."""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward
from optiscope.monitor.session import FORM_STEPS, Session

__all__ = ["RULES"]


class Order(Rule):
    """Batches that come again: in the same order, the same every step, or many times."""

    name = "same_order_every_epoch"
    family = "data"
    exact = True
    also = ("same_batch_every_step", "batches_repeated", "samples_duplicated")
    MEMORY = 1024
    CONTIGUOUS = FORM_STEPS
    FOLLOWED = 10
    REPEATED = 12

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[int, Tensor]] = []
        self.odd: dict[int, Any] = {}
        self.history: list[int] = []
        self.position: dict[int, int] = {}
        self.last_step = -1
        self.duplicated = 0
        self.looked = 0
        self.first: dict[int, int] = {}
        self.steps: list[int] = []
        self.follow: tuple[int, int] | None = None
        self.evaluation_rows = 0
        self.previous = (-1, 0)

    def forward(self, forward: Forward) -> None:
        """Keep the fingerprints of training batches; read them together."""
        rows = forward.rows
        if rows is None:
            return
        if not forward.grad:
            step = self.session.step
            if self.previous[0] != step:
                self.previous = (step, 0)
            self.previous = (step, self.previous[1] + len(rows))
            self.evaluation_rows = max(self.evaluation_rows, self.previous[1])
            return
        if not forward.training or forward.in_step:
            return
        if len(forward.inputs) > 1 and forward.inputs[1].is_floating_point():
            return  # a hidden state or a time is handed on: order may be meant
        self.fingerprints(rows, self.session.step)

    def fingerprints(self, rows: Tensor, step: int) -> None:
        """Keep the fingerprints of one batch."""
        self.pending.append((step, rows))
        if rows.device.type == "cpu" or len(self.pending) >= 16:
            self._read()

    def _read(self) -> None:
        width = max(self.session.fingerprint.varying, 1)
        for step, rows in self.pending:
            values = rows.cpu().numpy()
            odd = self.odd.get(len(values))
            if odd is None:
                odd = self.odd[len(values)] = np.arange(1, 2 * len(values), 2)
            batch = int((values * odd).sum())
            if len(values) >= 8 and width >= 8 and self.looked < 60:
                self.looked += 1
                distinct = len(set(values.tolist()))
                self.duplicated = self.duplicated + 1 if distinct <= len(values) / 2 else 0
                if self.duplicated >= 10:
                    self.report(
                        f"A batch of {len(values)} samples holds {distinct} different ones.",
                        "Look at the index in __getitem__ and at the sampler; seed the workers "
                        "differently.",
                        rule="samples_duplicated",
                        measured={"different": distinct},
                        threshold={"different": len(values) / 2},
                    )
            if step == self.last_step and self.history and self.history[-1] == batch:
                continue  # a second look at the batch within one step
            self.last_step = step
            if step < self.CONTIGUOUS and len(self.history) < self.MEMORY:
                self.steps.append(step)
                self.first.setdefault(batch, len(self.history))
                self._add(batch, len(values))
            else:
                self._later(batch, step)
        self.pending.clear()

    def _add(self, batch: int, size: int) -> None:
        self.history.append(batch)
        here = len(self.history) - 1
        before = self.position.get(batch)
        self.position[batch] = here
        if before is None:
            return
        h = self.history
        period = here - before
        if period == 1:
            run = 1
            while run <= here and h[here - run] == batch:
                run += 1
            if run >= self.REPEATED and len(set(h)) == 1:
                small = self.evaluation_rows > size
                self.report(
                    f"Every step so far had the same batch of {size} samples.",
                    "Iterate over the loader: next(iter(loader)) begins anew each time. If the "
                    "batch is the whole training set, this is full-batch training.",
                    rule="same_batch_every_step",
                    severity="warning" if small else "note",
                    measured={"steps": run},
                    threshold={"steps": self.REPEATED},
                )
        elif period >= 2:
            need = max(period, 6)
            if here + 1 >= need + period and all(
                h[here - i] == h[here - i - period] for i in range(need)
            ):
                if len(set(h[here - period + 1 : here + 1])) == 1:
                    return
                self.report(
                    f"The same {period} batches come in the same order again: the data are not "
                    "shuffled between epochs.",
                    "Use shuffle=True, or sampler.set_epoch(epoch) with a distributed sampler.",
                    measured={"period": period, "repeated": need},
                    threshold={"repeated": need},
                )
        self._repeats()

    def _later(self, batch: int, step: int) -> None:
        """Look for batches of the first steps; where one comes again, follow what comes next."""
        if self.follow is None:
            start = self.first.get(batch)
            if start is not None and start + self.FOLLOWED < len(self.history):
                self.follow = (start, start)
                self.wants_fingerprints = True
            return
        start, here = self.follow
        if self.history[here + 1] != batch:
            self.follow, self.wants_fingerprints = None, False
            return
        self.follow = (start, here + 1)
        if here + 1 - start < self.FOLLOWED:
            return
        self.follow, self.wants_fingerprints = None, False
        again = self.history[start : here + 2]
        if len(set(again)) > 1:
            period = step - self.steps[here + 1]
            self.report(
                f"Batches come in the same order as {period} steps ago ({len(again)} running): the "
                "data are not shuffled between epochs.",
                "Use shuffle=True, or sampler.set_epoch(epoch) with a distributed sampler.",
                measured={"period": period, "repeated": len(again)},
                threshold={"repeated": len(again)},
            )

    def _repeats(self) -> None:
        recent = self.history[-40:]
        counts = Counter(recent)
        runs = sum(a == b for a, b in itertools.pairwise(recent))
        if len(recent) == 40 and len(counts) >= 5 and runs >= 0.4 * len(recent):
            self.report(
                f"Batches come several times in a row: the last 40 steps had {len(counts)} "
                "different ones.",
                "Look for workers with the same seed, or a loop that uses a batch twice.",
                rule="batches_repeated",
                measured={"different": len(counts)},
                threshold={"different": 24},
                confidence=0.9,
            )


class SortedBatches(Rule):
    """Batches whose labels are far more alike than those of the whole set."""

    name = "batches_sorted"
    family = "data"
    severity = "error"

    def __init__(self) -> None:
        super().__init__()
        self.batches: deque[tuple[float, int]] = deque(maxlen=400)  # entropy and size
        self.total: Counter[int] = Counter()

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Count labels, given or recovered."""
        labels = labels_of(self.session, forward, gradient)
        if labels is None or len(labels) < 4 or (forward.output is not None
                                                 and forward.output.ndim > 2):  # fmt: skip
            return
        counts = label_counts(forward, labels)
        self.batches.append((_entropy(counts), counts.total()))
        self.total.update(counts)
        n = len(self.batches)
        if n < 12 or n % 4:
            return
        if len(self.total) < 2:
            return
        within = sum(entropy for entropy, _ in self.batches) / n
        over = _entropy(self.total)
        mean = sum(size for _, size in self.batches) / n
        expected = max(0.0, over - (len(self.total) - 1) / (2 * mean))
        if within < 0.5 * expected and over > 0.3:
            self.report(
                f"Batches are sorted by label: a batch holds {within:.2g} nats of label entropy, "
                f"the batches together {over:.2g}.",
                "Shuffle the training data (shuffle=True).",
                measured={"entropy within": within, "entropy over": over},
                threshold={"entropy within": 0.5 * expected},
            )


def _entropy(counts: Counter[int]) -> float:
    n = counts.total()
    return -sum(c / n * math.log(c / n) for c in counts.values() if c)


def label_counts(forward: Forward, labels: Tensor) -> Counter[int]:
    """How often each of ``labels`` (those of ``forward``) comes, counted once for all rules."""
    if forward.counts is None:
        forward.counts = Counter(labels.tolist())
    return forward.counts


def labels_of(session: Session, forward: Forward, gradient: Tensor) -> Tensor | None:
    """Class labels of a training batch: the criterion's targets, else recovered ones."""
    target = forward.target
    if target is not None and not target.is_floating_point() and target.dtype != torch.bool:
        flat = target.reshape(-1)[:2048].cpu()
        return flat[flat >= 0]
    return session.labels(forward, gradient)


class InPlace(Rule):
    """A model that changes the data it is called with."""

    name = "input_changed_in_place"
    family = "data"
    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, forward: Forward) -> None:
        """The input's version moved during the call, and it is a view of something larger."""
        first = forward.input
        if not forward.mutated or first is None:
            return
        self.count += 1
        larger = first.untyped_storage().nbytes() > first.numel() * first.element_size()
        if self.count == 3 or (larger and self.count < 3):
            self.report(
                "The model changes its input in place"
                + (": the input is a view, so that the data themselves change." if larger else "."),
                "Use an operation that makes a new tensor in the first layer (x = x - m, no "
                "inplace=True).",
                severity="error" if larger else "note",
                measured={"calls": self.count},
                threshold={"calls": 0},
            )


class EvaluationOnTraining(Rule):
    """Evaluation batches in which some samples were trained on and others were not."""

    name = "evaluation_overlaps_training"
    family = "evaluation"
    also = ("evaluation_on_training_data",)
    LIMIT = 150_000

    def __init__(self) -> None:
        super().__init__()
        self.wants_fingerprints = True
        self.trained: set[int] = set()
        self.known = 0
        self.batches: deque[tuple[int, int]] = deque(maxlen=64)
        self.pending: list[Tensor] = []
        self.done = False
        self.passes: list[list[int]] = []
        self.at = -1
        self.different: set[int] = set()

    def forward(self, forward: Forward) -> None:
        """Compare fingerprints of evaluated samples with those of trained ones."""
        rows = forward.rows
        if self.done or rows is None or self.session.fingerprint.varying < 12:
            return
        if forward.grad:
            if len(self.different) < 8:
                self.different.add(int(rows.sum()))
            self.fingerprints(rows, self.session.step)
            return
        if self.session.step < 10 or forward.training:
            return
        self._read()
        values = rows.cpu().tolist()
        if len(values) < 8:
            return
        seen = sum(v in self.trained for v in values)
        self.batches.append((seen, len(values)))
        self._only(seen, len(values))
        mixed = [(s, n) for s, n in self.batches if 0.03 * n < s < 0.97 * n]
        if len(mixed) >= 2 and len(mixed) >= 0.8 * len(self.batches):
            seen, total = sum(s for s, _ in mixed), sum(n for _, n in mixed)
            self.report(
                f"{seen / total:.0%} of the evaluated samples were trained on.",
                "Split the data once, without overlap, before augmentation; optiscope.check shows "
                "the pairs.",
                measured={"share": seen / total},
                threshold={"share": 0.03},
            )
            self.done = True

    def _only(self, seen: int, size: int) -> None:
        """Every evaluation so far, three at least, saw hardly anything but training samples."""
        step = self.session.step
        if self.at < 0 or step - self.at >= 5:
            self.passes.append([0, 0])
        self.at = step
        self.passes[-1][0] += seen
        self.passes[-1][1] += size
        whole = self.passes[:-1]  # the last one may go on
        if len(whole) < 3 or len(self.different) < 8:
            return
        if all(n >= 50 and s >= 0.97 * n for s, n in whole):
            self.report(
                f"All of the last {len(whole)} evaluations saw samples that were trained on, and "
                "no other: they cannot tell generalization from memorization.",
                "Evaluate on a split that is not trained on; look at how the loaders are made.",
                rule="evaluation_on_training_data",
                measured={"evaluations": len(whole)},
                threshold={"evaluations": 3},
                confidence=0.9,
            )

    def fingerprints(self, rows: Tensor, step: int) -> None:
        """Keep the samples of the first epoch: every batch, until batches hold nothing new."""
        if not self.done:
            self.pending.append(rows)
            if len(self.pending) >= 16:
                self._read()

    def _read(self) -> None:
        for rows in self.pending:
            values = rows.cpu().tolist()
            new = sum(value not in self.trained for value in values)
            self.known = self.known + 1 if new <= 0.01 * len(values) else 0
            self.trained.update(values)
        self.pending.clear()
        self.wants_fingerprints = self.known < 8
        if len(self.trained) > self.LIMIT:  # a larger set cannot be told from a part of it
            self.done, self.wants_fingerprints = True, False
            self.trained.clear()


RULES: tuple[type[Rule], ...] = (Order, SortedBatches, InPlace, EvaluationOnTraining)
