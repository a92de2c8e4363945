"""The form of the loss: what was applied to the output, how it was summed, and its sign."""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np
import torch
from torch import Tensor, nn

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, LossCall, WatchedStep, at_looks
from optiscope.monitor.graph import ACTIVATIONS
from optiscope.monitor.loss_form import LossForm

__all__ = ["RULES", "one_weight"]

ENOUGH = 3


class ActivationBeforeLoss(Rule):
    """An activation between the last layer and a loss that applies its own."""

    name = "softmax_before_cross_entropy"
    family = "loss_form"
    severity = "error"
    exact = True
    also = (
        "squashed_before_cross_entropy",
        "rectified_logits",
        "log_softmax_over_batch",
        "nll_of_non_log_probabilities",
        "squashed_before_bce",
        "double_log_softmax",
    )
    LOOKS = 30
    WHOLE = 10

    def __init__(self) -> None:
        super().__init__()
        self.kind = ""
        self.operation: dict[int, tuple[str, int | None]] = {}
        self.sums = 0
        self.non_log = 0
        self.ranges: deque[tuple[float, float, float]] = deque(maxlen=self.LOOKS)
        self.bce: deque[tuple[float, float]] = deque(maxlen=self.LOOKS)

    def forward(self, forward: Forward) -> None:
        """Note the operation that made the output."""
        if forward.operation is not None:
            name = forward.operation.name()
            dim = getattr(forward.operation, "_saved_dim", None)
            self.operation = {forward.number: (name, dim)}

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Compare the form of the gradient with the operation and the values of the output."""
        if forward.output is None:
            return
        if not forward.look and self.session.step >= self.WHOLE:
            self._range_only(forward.output)
            return
        form = self.session.form(forward, gradient)
        self.kind = form.kind
        operation, dim = self.operation.get(forward.number, ("", None))
        if form.kind == "cross_entropy":
            self._cross_entropy(form, operation)
        elif form.kind == "nll":
            self._nll(forward, form, operation, dim)
        elif form.kind == "bce":
            self._bce(form, operation)

    def _cross_entropy(self, form: LossForm, operation: str) -> None:
        o = form.logits
        row_sums = o.sum(1)
        probabilities = bool((o >= 0).all() & ((row_sums - 1).abs() < 2e-3).all())
        self.sums = self.sums + 1 if probabilities and len(o) > 1 else 0
        if operation == "SoftmaxBackward0" or self.sums >= ENOUGH:
            self.kind = ""  # its range says nothing more
            self.report(
                "Cross-entropy is applied to probabilities: the model ends with a softmax, and the "
                "loss applies another.",
                "Remove the softmax from the model's training output (torch's cross-entropy takes "
                "logits).",
                measured={"row sum": float(row_sums.mean())},
                threshold={"row sum": 1.0},
            )
            return
        if operation in ("SigmoidBackward0", "TanhBackward0", "HardtanhBackward0"):
            self._squashed(ACTIVATIONS.get(operation, "activation"), float(o.min()), float(o.max()))
            return
        if operation == "ReluBackward0":
            self._rectified(float((o == 0).double().mean()))
            return
        if operation == "LogSoftmaxBackward0":
            self.report(
                "Cross-entropy is applied to log-probabilities: its own log-softmax does nothing.",
                "Use NLLLoss, or leave the log-softmax out.",
                rule="double_log_softmax",
                severity="note",
            )
        self._add_range(o)

    def _range_only(self, output: Tensor) -> None:
        """Between looks: the range of the output, where the form of its loss is known."""
        few = output.detach().reshape(-1)[:5120]
        if self.kind == "cross_entropy":
            if few.is_cpu and few.dtype in (torch.float32, torch.float64):
                values = few.numpy()  # the same in fewer calls
                zeros = 1 - np.count_nonzero(values) / max(values.size, 1)
                self._keep_range(float(values.min()), float(values.max()), zeros)
            else:
                self._add_range(few)
        elif self.kind == "bce":
            self._add_bce(few, "")

    def _add_range(self, o: Tensor) -> None:
        zeros = float((o == 0).double().mean())
        self._keep_range(float(o.min()), float(o.max()), zeros)

    def _keep_range(self, low: float, high: float, zeros: float) -> None:
        self.ranges.append((low, high, zeros))
        if len(self.ranges) == self.LOOKS:
            low = min(r[0] for r in self.ranges)
            high = max(r[1] for r in self.ranges)
            zeros = sorted(r[2] for r in self.ranges)[self.LOOKS // 2]
            if low >= 0 and zeros > 0.05:
                self._rectified(zeros)
            elif low > 0 and high < 1 and high - low > 0.2:
                self._squashed("sigmoid", low, high)

    def _squashed(self, kind: str, low: float, high: float) -> None:
        self.report(
            f"Cross-entropy is applied to the output of a {kind}: logits cannot leave "
            f"[{-1 if kind != 'sigmoid' else 0}, 1], so no class can become certain.",
            f"Remove the {kind} after the last layer.",
            rule="squashed_before_cross_entropy",
            measured={"lowest": low, "highest": high},
        )

    def _rectified(self, zeros: float) -> None:
        self.report(
            f"The logits pass a relu before cross-entropy: {zeros:.0%} of them are exactly zero.",
            "Remove the relu after the last layer.",
            rule="rectified_logits",
            measured={"zeros": zeros},
            threshold={"zeros": 0.05},
        )

    def _nll(self, forward: Forward, form: LossForm, operation: str, dim: int | None) -> None:
        o = form.logits
        total = o.exp().sum(1)
        log_probabilities = bool(((total - 1).abs() < 2e-2).all())
        if log_probabilities:
            self.non_log = 0
            return
        assert forward.output is not None
        out = forward.output
        over_batch = (
            operation == "LogSoftmaxBackward0"
            or bool(((out.double().exp().sum(0) - 1).abs() < 1e-3).all())
        ) and out.ndim == 2
        self.non_log += 1
        if over_batch and out.shape[0] > 1:
            self.report(
                "Log-softmax runs over the batch (dim 0) instead of the classes: the samples of a "
                "batch compete with each other.",
                "Use log_softmax(..., dim=1), or dim=-1.",
                rule="log_softmax_over_batch",
                measured={"row sum": float(total.mean())},
                threshold={"row sum": 1.0},
            )
        if over_batch or self.non_log >= ENOUGH:
            self.report(
                "The negative log-likelihood is applied to outputs that are not log-probabilities: "
                f"exp(output) sums to {float(total.median()):.3g} in a row instead of 1.",
                "Apply log_softmax over the classes, or use CrossEntropyLoss on logits.",
                rule="nll_of_non_log_probabilities",
                measured={"row sum": float(total.median())},
                threshold={"row sum": 1.0},
            )

    def _bce(self, form: LossForm, operation: str) -> None:
        self._add_bce(form.logits, operation)

    def _add_bce(self, o: Tensor, operation: str) -> None:
        self.bce.append((float(o.min()), float(o.max())))
        low, high = min(r[0] for r in self.bce), max(r[1] for r in self.bce)
        inside = len(self.bce) == self.LOOKS and low > 0 and high < 1 and high - low > 0.2
        if operation in ("SigmoidBackward0", "SoftmaxBackward0") or inside:
            self.report(
                "Binary cross-entropy with logits is applied to probabilities: the model ends with "
                "a sigmoid, and the loss applies another.",
                "Remove the sigmoid, or use BCELoss.",
                rule="squashed_before_bce",
                measured={"lowest": low, "highest": high},
            )


class Reduction(Rule):
    """Losses summed over the batch, or over backward passes, instead of averaged."""

    name = "loss_summed"
    family = "loss_form"
    exact = True
    also = ("accumulation_not_divided", "loss_ascends", "loss_divided_twice")

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[tuple[float, int, int]] = []
        self.summed = 0
        self.undivided = 0
        self.ascending = 0
        self.again = 0
        self.size = 0

    @at_looks
    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Total weight of the rows, from the gradient of the logits."""
        form = self.session.form(forward, gradient)
        self.size = forward.size
        if (form.kind == "cross_entropy" and form.logits.shape[1] > 2) or form.kind == "nll":
            self.weights.append((form.total_weight, form.rows, forward.number))
            del self.weights[:-64]
            self._sign(form)

    def _sign(self, form: LossForm) -> None:
        maximize = any(g.get("maximize") for o in self.session.optimizers for g in o.param_groups)
        if not maximize and not one_weight(form):
            self.ascending = 0
            return  # a policy gradient: costs push every action down
        negative = float((form.weights < 0).double().mean())
        wrong = negative < 0.1 if maximize else negative > 0.9
        self.ascending = self.ascending + 1 if wrong and form.kind == "cross_entropy" else 0
        if self.ascending >= ENOUGH:
            self._ascends(form.total_weight)

    def _ascends(self, weight: float) -> None:
        self.report(
            "The loss is maximized: its derivative enters the backward pass with the wrong sign.",
            "Remove the minus sign before the loss, or maximize=True from the optimizer.",
            rule="loss_ascends",
            severity="error",
            measured={"weight": weight},
            threshold={"weight": 0.0},
        )

    def before_step(self, view: WatchedStep) -> None:
        """What the backward passes of this step add up to."""
        if view.closure or view.index:
            self.weights.clear()
            return
        self._criterion(view)
        weights, self.weights = self.weights, []
        self._divided(view, weights)
        if not weights or 0 < view.uncleared == view.accumulations:
            return
        totals = [abs(w) for w, _, _ in weights]
        undone = abs(totals[-1] * _changed(view) - 1) < 1e-2  # gradients divided by hand
        sums = not undone and all(
            rows > 1 and abs(total / rows - 1) < 1e-2
            for total, (_, rows, _) in zip(totals, weights, strict=True)
        )
        self.summed = self.summed + 1 if sums else 0
        if self.summed >= ENOUGH:
            rows = weights[-1][1]
            self._say_summed(rows, totals[-1])
        means = all(abs(total - 1) < 1e-2 for total in totals)
        separate = len({number for _, _, number in weights}) == len(weights)
        k = view.accumulations
        together = (
            k >= 2
            and self._alone()
            and view.uncleared == k - 1
            and len(weights) == k
            and separate
            and means
            and view.forwards
        )
        self.undivided = self.undivided + 1 if together else 0
        if self.undivided >= ENOUGH:
            self._say_undivided(k)

    def _divided(self, view: WatchedStep, weights: list[tuple[float, int, int]]) -> None:
        """A mean over the batch that is divided by the batch's size once more."""
        if view.accumulations != 1 or view.fresh_norm is None:
            return
        calls = [c for c in view.losses if c.scale is not None and c.grad]
        mean = getattr(self.session.loss_function, "reduction", "mean") == "mean"
        if len(weights) == 1:
            total, size = abs(weights[0][0]), self.size
        elif not weights and len(calls) == 1 and mean and calls[0].prediction is not None:
            total, size = abs(calls[0].scale or 0.0), len(calls[0].prediction)
        else:
            return
        total *= _changed(view)
        round_number = any(10**k % size == 0 for k in range(1, 5)) if size else True
        divided = size >= 4 and not round_number and abs(total * size - 1) < 1e-2
        self.again = self.again + 1 if divided else 0
        if self.again >= ENOUGH:
            self.report(
                f"The loss is divided twice by the batch's size ({size}): the gradient is {size} "
                "times smaller than that of the mean.",
                "Remove the division: the loss is a mean already.",
                rule="loss_divided_twice",
                measured={"total weight": total},
                threshold={"total weight": 1.0},
                confidence=0.95,
            )

    def _say_summed(self, rows: int, total: float) -> None:
        self.report(
            f"The loss is summed over the batch: the gradient is {rows} times that of the mean, "
            "and changes with the batch size.",
            'Use reduction="mean", or divide the loss by the number of samples.',
            measured={"total weight": total, "samples": rows},
            threshold={"total weight": 1.0},
        )

    def _alone(self) -> bool:
        """Whether no other optimizer steps: an adversary's backward pass reaches here too."""
        return len(self.session.steps) == 1 and not self.session.other_optimizers

    def _say_undivided(self, k: int) -> None:
        self.report(
            f"{k} backward passes are accumulated and each has weight 1: the gradient is {k} times "
            "that of their mean.",
            f"Divide the loss by {k} (the number of backward passes per step).",
            rule="accumulation_not_divided",
            measured={"total weight": k},
            threshold={"total weight": 1.0},
        )

    def _criterion(self, view: WatchedStep) -> None:
        """The same from a criterion that is watched, whatever its form."""
        calls = [c for c in view.losses if c.scale is not None and c.prediction is not None]
        if not calls:
            return
        maximize = bool(view.optimizer.param_groups[0].get("maximize"))
        scales = [c.scale for c in calls if c.scale is not None]
        if all((s < 0) != maximize and s != 0 for s in scales):
            self.ascending += 1
            if self.ascending >= ENOUGH and len(calls) == len(view.losses):
                self._ascends(scales[-1])
        if self.weights:
            return
        call = calls[-1]
        reduction = getattr(call.criterion, "reduction", None)
        size = (
            call.prediction.shape[0] if call.prediction is not None and call.prediction.ndim else 1
        )
        if reduction == "sum" and size > 1 and abs(scales[-1] - 1) < 1e-6:
            wide = call.prediction is not None and call.prediction.numel() > 4 * size
            self.summed += 1
            if self.summed >= ENOUGH:
                self.report(
                    f"The loss is summed over the batch of {size}: the gradient changes with the "
                    "batch size.",
                    'Use reduction="mean", or divide the loss by the number of samples.',
                    severity="note" if wide else "warning",
                    measured={"samples": size},
                    threshold={"samples": 1},
                )
        k = view.accumulations
        distinct = len({id(c.forward) for c in calls}) == len(calls)
        if (
            k >= 2
            and self._alone()
            and view.uncleared == k - 1
            and len(calls) == k == len(view.losses)
            and distinct
            and reduction == "mean"
            and all(abs(s - 1) < 1e-6 for s in scales)
            and all(c.forward is not None and c.forward.training for c in calls)
        ):
            self.undivided += 1
            if self.undivided >= ENOUGH:
                self._say_undivided(k)


def _changed(view: WatchedStep) -> float:
    """By which factor the gradient was changed between backward pass and step; 1 if unknown."""
    grad = None if view.sentinel is None else view.sentinel.grad
    if grad is None or grad.is_sparse or not view.fresh_norm or view.accumulations != 1:
        return 1.0
    return float(grad.norm()) / view.fresh_norm


def one_weight(form: LossForm) -> bool:
    """Whether all rows of a label have the same weight, as in a loss without returns."""
    for label in form.labels.unique():
        own = form.weights[form.labels == label]
        if float(own.max() - own.min()) > 2e-2 * float(own.abs().max()):
            return False
    return True


class Broadcasts(Rule):
    """A loss whose prediction and target have different shapes that broadcast."""

    name = "loss_broadcasts"
    family = "loss_form"
    severity = "error"
    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.centres: list[float] = []
        self.bad = 0

    def loss(self, call: LossCall) -> None:
        """Shapes at the criterion, where it compares entry by entry."""
        p, t = call.prediction, call.target
        kinds = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
        if p is None or t is None or not call.grad or p.shape == t.shape:
            return
        named = getattr(call.criterion, "__name__", "")
        entrywise = isinstance(call.criterion, kinds) or named in (
            "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss",
        )  # fmt: skip
        if not entrywise or max(p.numel(), t.numel()) < 2:
            return
        try:
            shape = torch.broadcast_shapes(p.shape, t.shape)
        except RuntimeError:
            return
        if t.numel() == 1 or (shape == p.shape and t.ndim == 0):
            return
        self._say(tuple(p.shape), tuple(t.shape), tuple(shape))

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Without a criterion: every sample is pulled to one and the same value.

        The mean of the batch's targets, that is: another one for each batch. An adversary pulls to
        one value too (real or fake, whatever the batch).
        """
        out = forward.output
        if (
            out is None
            or len(self.centres) > 8
            or forward.target is not None
            or out.numel() != out.shape[0]
            or out.ndim > 2
        ):
            return
        if out.numel() < 8:
            return
        o = out.detach().reshape(-1).double()
        g = gradient.detach().reshape(-1).double()
        spread = o - o.mean()
        if float(spread.abs().max()) < 0.2 or float(g.std()) < 1e-12:
            return  # among outputs so close to each other every loss looks like a parabola
        slope = float((spread * g).sum() / spread.square().sum())
        residual = float((g - g.mean() - slope * spread).abs().max())
        if slope <= 0 or residual > 1e-5 * float(g.abs().max()):
            self.centres.clear()
            return
        self.centres.append(float(o.mean()) - float(g.mean()) / slope)
        if len(self.centres) >= 4:
            values = sorted(self.centres)
            nearest = min(b - a for a, b in itertools.pairwise(values))
            if nearest > 1e-4 * max(abs(values[0]), abs(values[-1]), 1e-6):
                n = out.shape[0]
                self._say(tuple(out.shape), (n,), (n, n))

    def _say(self, p: tuple[int, ...], t: tuple[int, ...], both: tuple[int, ...]) -> None:
        self.report(
            f"Prediction {list(p)} and target {list(t)} broadcast to {list(both)}: every sample is "
            "compared with every target.",
            "Give both the same shape (squeeze(-1) or unsqueeze(-1)).",
            measured={"compared": float(torch.Size(both).numel())},
            threshold={"compared": float(max(torch.Size(p).numel(), 1))},
        )


BOUNDED = {
    "SoftmaxBackward0": "softmax",
    "LogSoftmaxBackward0": "log-softmax",
    "SoftplusBackward0": "softplus",
    "ExpBackward0": "exponential",
    "AbsBackward0": "absolute value",
    "LogSigmoidBackward0": "log-sigmoid",
}


class Targets(Rule):
    """Targets that the loss or the output does not allow for."""

    name = "target_out_of_range"
    family = "labels"
    severity = "error"
    exact = True
    also = ("output_cannot_reach_target",)

    def __init__(self) -> None:
        super().__init__()
        self.operation = ""
        self.counts: dict[str, int] = {}
        self.unreachable = 0

    def forward(self, forward: Forward) -> None:
        """Note the operation that made the output."""
        if forward.operation is not None:
            name = forward.operation.name()
            self.operation = ACTIVATIONS.get(name) or BOUNDED.get(name, "")

    def loss(self, call: LossCall) -> None:
        """Targets against the loss's range and the output's."""
        p, t = call.prediction, call.target
        if p is None or t is None or not call.grad or call.step > 50 or t.numel() == 0:
            return
        name = getattr(call.criterion, "__name__", type(call.criterion).__name__)
        if name in ("BCEWithLogitsLoss", "binary_cross_entropy_with_logits", "BCELoss"):
            low, high = float(t.min()), float(t.max())
            self._range(low < -1e-6 or high > 1 + 1e-6, low, high, "binary cross-entropy")
        elif name in ("CrossEntropyLoss", "cross_entropy") and t.is_floating_point():
            if t.shape == p.shape and t.ndim >= 2:
                sums = t.sum(1)
                low, high = float(sums.min()), float(sums.max())
                self._range(abs(low - 1) > 1e-2 or abs(high - 1) > 1e-2, low, high, "cross-entropy")
        elif name in ("KLDivLoss", "kl_div"):
            total = p.detach().exp().sum(-1)
            low, high = float(total.min()), float(total.max())
            self._range(abs(low - 1) > 5e-2 or abs(high - 1) > 5e-2, low, high, "KLDivLoss")
            if not call.options.get("log_target", getattr(call.criterion, "log_target", False)):
                sums = t.sum(-1) if t.shape == p.shape else torch.ones(1)
                low, high = float(sums.min()), float(sums.max())
                wrong = abs(low - 1) > 5e-2 or abs(high - 1) > 5e-2
                self._range(wrong, low, high, "KLDivLoss of targets")
        elif name in ("MSELoss", "mse_loss", "L1Loss", "l1_loss", "SmoothL1Loss", "smooth_l1_loss",
                      "HuberLoss", "huber_loss"):  # fmt: skip
            self._reach(p, t)

    def _range(self, wrong: bool, low: float, high: float, loss: str) -> None:
        self.counts[loss] = self.counts.get(loss, 0) + 1 if wrong else 0
        if self.counts[loss] < 2:
            return
        words = {
            "binary cross-entropy": f"targets lie in [{low:.3g}, {high:.3g}] instead of [0, 1]",
            "cross-entropy": f"the rows of the target sum to [{low:.3g}, {high:.3g}] instead of 1",
            "KLDivLoss": f"exp(input) sums to [{low:.3g}, {high:.3g}] in a row instead of 1",
            "KLDivLoss of targets": f"targets sum to [{low:.3g}, {high:.3g}] in a row, not 1",
        }[loss]
        self.report(
            f"The loss is {loss}, but {words}.",
            {
                "binary cross-entropy": "Scale the targets to [0, 1].",
                "cross-entropy": "For several labels a sample use BCEWithLogitsLoss; otherwise "
                "normalize the rows.",
                "KLDivLoss": "Pass log-probabilities (log_softmax) as input.",
                "KLDivLoss of targets": "Pass probabilities (softmax), or set log_target=True.",
            }[loss],
            measured={"lowest": low, "highest": high},
        )

    def _reach(self, p: Tensor, t: Tensor) -> None:
        end = float("inf")
        bounds = {
            "relu": (0.0, end), "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "softmax": (0.0, 1.0),
            "softplus": (0.0, end), "exponential": (0.0, end), "absolute value": (0.0, end),
            "log-sigmoid": (-end, 0.0), "log-softmax": (-end, 0.0),
        }  # fmt: skip
        if self.operation not in bounds or p.shape != t.shape:
            return
        low, high = bounds[self.operation]
        margin = 0.02 if high < float("inf") else 0.0
        outside = float(((t < low - margin) | (t > high + margin)).double().mean())
        self.unreachable = self.unreachable + 1 if outside > 0.05 else 0
        if self.unreachable >= ENOUGH:
            self.report(
                f"{outside:.0%} of the targets lie outside of [{low:g}, {high:g}], the range of "
                f"the {self.operation} that the model ends with.",
                f"Remove the {self.operation} after the last layer, or scale the targets.",
                rule="output_cannot_reach_target",
                measured={"share": outside},
                threshold={"share": 0.05},
            )


class SamplesIgnored(Rule):
    """Rows of the output that the loss never uses, in batch after batch."""

    name = "samples_ignored"
    family = "loss_form"
    severity = "error"
    exact = True
    BATCHES = 6

    def __init__(self) -> None:
        super().__init__()
        self.used: Tensor | None = None
        self.batches = 0
        self.rows: set[int] = set()

    def output_gradient(self, forward: Forward, gradient: Tensor) -> None:
        """Which positions of the batch ever have a gradient."""
        out, rows = forward.output, forward.rows
        if out is None or rows is None or out.ndim != 2 or out.shape[0] != len(rows):
            return
        if len(rows) < 4 or forward.in_step or self.batches > self.BATCHES:
            return
        used = (gradient != 0).any(1).cpu()
        if self.used is None or len(self.used) != len(used):
            self.used, self.batches = used, 0
            self.rows.clear()
        self.used = self.used | used
        self.batches += 1
        self.rows.add(int(rows[0]))
        share = float(self.used.double().mean())
        if self.batches == self.BATCHES and 0 < share <= 0.5 and len(self.rows) > 1:
            self.report(
                f"The loss uses {share:.0%} of the samples of a batch: the outputs of the others "
                "never receive a gradient.",
                "Look at the index or slice between output and loss.",
                measured={"share": share},
                threshold={"share": 1.0},
                confidence=0.95,
            )


RULES: tuple[type[Rule], ...] = (
    ActivationBeforeLoss,
    Reduction,
    Broadcasts,
    Targets,
    SamplesIgnored,
)
