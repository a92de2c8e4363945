"""Arguments and settings of the loss: order, ranges, weights, smoothing, what is ignored."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import LossCall, WatchedStep

__all__ = ["RULES"]


def loss_name(call: LossCall) -> str:
    """The loss without the spelling of module or function (``"crossentropy"``)."""
    name = getattr(call.criterion, "__name__", type(call.criterion).__name__)
    return name.replace("_", "").lower().removesuffix("loss")


class Settings(Rule):
    """Settings of a cross-entropy that leave little of the labels."""

    name = "label_smoothing_too_high"
    family = "loss_form"
    severity = "error"
    exact = True
    also = (
        "cross_entropy_of_one_class",
        "class_ignored",
        "class_weight_zero",
        "class_weights_inverted",
    )
    LABELS = 400

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        self.ignored = self.calls = 0
        self.done = False
        self.positive = self.total = 0.0

    def loss(self, call: LossCall) -> None:
        """Look at the settings in the first calls, and count labels until there are enough."""
        if self.done or not call.grad or call.prediction is None or call.target is None:
            return
        self.calls += 1
        self.done = self.calls >= 400
        name = loss_name(call)
        if name == "crossentropy":
            self._smoothing(call)
        if name in ("crossentropy", "nll") and not call.target.is_floating_point():
            self._classes(call)
        elif name in ("bcewithlogits", "binarycrossentropywithlogits"):
            self._positive(call)

    def _setting(self, call: LossCall, name: str) -> Any:
        return call.options.get(name, getattr(call.criterion, name, None))

    def _smoothing(self, call: LossCall) -> None:
        smoothing = self._setting(call, "label_smoothing")
        if isinstance(smoothing, float) and smoothing >= 0.5:
            self.report(
                f"Label smoothing is {smoothing}: a label keeps {1 - smoothing:.0%} of its weight, "
                "the rest is spread over all classes.",
                "label_smoothing is the share that is spread: usual values lie between 0 and 0.2.",
                measured={"smoothing": smoothing},
                threshold={"smoothing": 0.5},
            )

    def _classes(self, call: LossCall) -> None:
        out, target, forward = call.prediction, call.target, call.forward
        if out is None or target is None:
            return
        if out.ndim >= 2 and out.shape[1] == 1:
            self.report(
                "Cross-entropy is applied to one output a sample: the softmax of one number is 1, "
                "and the loss is 0 whatever the weights.",
                "Use BCEWithLogitsLoss for one output, or two outputs with CrossEntropyLoss.",
                rule="cross_entropy_of_one_class",
                measured={"outputs": 1},
                threshold={"outputs": 2},
            )
            return
        first = None if forward is None else forward.input
        if first is None or out.ndim != 2:
            return
        ignore = self._setting(call, "ignore_index")
        flat = target.reshape(-1).cpu()
        if not first.is_floating_point() and first.ndim == 2 and flat.numel() == first.numel():
            if isinstance(ignore, int) and ignore >= 0:
                self._inner(flat.view(first.shape), ignore)
            return
        if len(flat) != first.shape[0] or not first.is_floating_point():
            return
        self.counts.update(flat.tolist())
        n = self.counts.total()
        if n < max(self.LABELS, 20 * out.shape[1]) or self.calls % 10:
            return
        self.done = True
        if isinstance(ignore, int) and self.counts[ignore] > 0.2 * n / out.shape[1] and ignore >= 0:
            self._say_ignored(ignore, self.counts[ignore] / n, "samples")
        weights = call.options.get("weight", getattr(call.criterion, "weight", None))
        if isinstance(weights, Tensor) and weights.shape == (out.shape[1],):
            self._weights(weights.detach().double().cpu(), ignore)

    def _inner(self, labels: Tensor, ignore: int) -> None:
        """Ignored labels between others: padding stands at the ends."""
        used = labels != ignore
        after = used.flip(1).cumsum(1).flip(1) > 0
        before = used.cumsum(1) > 0
        inner = ~used & after & before
        share = float(inner.double().mean())
        self.ignored = self.ignored + 1 if share > 0.5 / max(int(labels.max()), 20) else 0
        if self.ignored >= 10:
            self._say_ignored(ignore, share, "tokens that are not padding")
            self.done = True

    def _say_ignored(self, label: int, share: float, what: str) -> None:
        self.report(
            f"ignore_index is {label}, and {label} is the label of {share:.0%} of the {what}: the "
            "class is never learned.",
            "Use a value that is not a class (the default is -100).",
            rule="class_ignored",
            measured={"share": share},
            threshold={"share": 0.0},
        )

    def _weights(self, weights: Tensor, ignore: Any) -> None:
        seen = [c for c in range(len(weights)) if self.counts[c] >= 10 and c != ignore]
        zero = [c for c in seen if float(weights[c]) == 0]
        if zero and len(seen) > len(zero):
            self.report(
                f"Class {zero[0]} has weight 0 and {self.counts[zero[0]]} samples so far: it is "
                "never learned.",
                "Give every class that occurs a weight above 0.",
                rule="class_weight_zero",
                severity="warning",
                measured={"classes": len(zero)},
                threshold={"classes": 0},
            )
        used = [c for c in seen if float(weights[c]) > 0]
        if len(used) < 2:
            return
        counts = torch.tensor([float(self.counts[c]) for c in used]).log()
        sizes = weights[used].log().float()
        if float(counts.max() - counts.min()) < math.log(2.5):
            return
        if float(sizes.max() - sizes.min()) < math.log(1.5):
            return
        together = float(torch.corrcoef(torch.stack([counts, sizes]))[0, 1])
        if together > 0.8:
            self._say_inverted(
                "Class weights grow with the number of samples (from "
                f"{float(weights[used].min()):.3g} to {float(weights[used].max()):.3g}): frequent "
                "classes count even more.",
                together,
            )

    def _positive(self, call: LossCall) -> None:
        weight = call.options.get("pos_weight", getattr(call.criterion, "pos_weight", None))
        if not isinstance(weight, Tensor) or weight.numel() != 1 or call.target is None:
            return
        self.positive += float(call.target.sum())
        self.total += call.target.numel()
        if self.total < self.LABELS:
            return
        self.done = True
        share, w = self.positive / self.total, float(weight)
        if (share < 0.3 and w < 0.7) or (share > 0.7 and w > 1 / 0.7):
            self._say_inverted(
                f"pos_weight is {w:.3g} although {share:.0%} of the labels are positive: the rarer "
                "side counts even less.",
                share,
            )

    def _say_inverted(self, sentence: str, value: float) -> None:
        self.report(
            sentence,
            "Weights that balance are inverse: total / (classes * count), and pos_weight = "
            "negatives / positives.",
            rule="class_weights_inverted",
            severity="warning",
            measured={"together": value},
            confidence=0.9,
        )


class Arguments(Rule):
    """Prediction and target in each other's place, or both made by the weights that learn."""

    name = "loss_arguments_swapped"
    family = "loss_form"
    severity = "error"
    exact = True
    also = ("target_has_gradient",)
    ONE_SIDED = (
        "bce", "binarycrossentropy", "bcewithlogits", "binarycrossentropywithlogits", "kldiv",
        "poissonnll", "crossentropy", "gaussiannll", "softmargin",
    )  # fmt: skip
    PAIRS = ("mse", "l1", "smoothl1", "huber", "kldiv")

    def __init__(self) -> None:
        super().__init__()
        self.swapped = self.moving = 0

    def loss(self, call: LossCall) -> None:
        """Which of the two arguments carries the graph."""
        if not call.grad or call.prediction_grad or not call.target_grad:
            return
        if loss_name(call) not in self.ONE_SIDED:
            return
        self.swapped += 1
        if self.swapped >= 2:
            self.report(
                f"The loss ({loss_name(call)}) gets the targets as its input and the model's "
                "output as its target.",
                "The model's output comes first: criterion(output, target).",
                measured={"calls": self.swapped},
                threshold={"calls": 0},
            )

    def before_step(self, view: WatchedStep) -> None:
        """Targets whose graph is used by nothing but the loss itself."""
        calls = [c for c in view.losses if c.grad]
        if not view.look or view.closure or len(calls) != 1 or len(calls[0].arrived) != 2:
            return
        call = calls[0]
        if loss_name(call) not in self.PAIRS or call.scale is None or not self._alone(call):
            self.moving = 0
            return
        self.moving += 1
        if self.moving >= 3:
            self.report(
                "The target of the loss depends on the weights and passes gradients to them: the "
                "weights learn to move the target to the output.",
                "Make the target under torch.no_grad(), or detach() it.",
                rule="target_has_gradient",
                measured={"looks": self.moving},
                threshold={"looks": 3},
                confidence=0.9,
            )

    def _alone(self, call: LossCall) -> bool:
        """Whether prediction and target get the loss's own gradient and no other."""
        if call.prediction is None or call.target is None or call.scale is None:
            return False
        with torch.enable_grad():
            pair = [t.detach().clone().requires_grad_() for t in (call.prediction, call.target)]
            value = call.criterion(*pair)
            if value.numel() != 1:
                return False
            own = torch.autograd.grad(value, pair, allow_unused=True)
        for position, gradient in enumerate(own):
            reached = call.arrived[position]
            if gradient is None or gradient.shape != reached.shape:
                return False
            if not torch.allclose(call.scale * gradient, reached, rtol=1e-3, atol=1e-9):
                return False
        return True


class ZeroLoss(Rule):
    """A loss that is exactly zero from the first step."""

    name = "loss_is_zero"
    family = "loss_form"
    severity = "error"
    exact = True

    def after_step(self, view: WatchedStep) -> None:
        """Look once, after twelve steps."""
        if view.number != 12 or view.index:
            return
        values = [v for _, v in self.session.loss_values[:12]]
        if len(values) == 12 and all(v == 0.0 for v in values):
            self.report(
                "The loss is exactly 0 in every step since the first: there is nothing to learn "
                "from.",
                "Compare what the loss is called with: output and target may be the same tensor, "
                "masked out, or outside of the margin.",
                measured={"loss": 0.0},
                threshold={"loss": 0.0},
            )


class SignsAndBlanks(Rule):
    """Targets that a margin, a transcription or a count does not allow for."""

    name = "margin_target_not_sign"
    family = "labels"
    severity = "error"
    exact = True
    also = ("ctc_of_non_log_probabilities", "blank_is_a_label", "rate_given_as_logarithm",
            "count_negative", "divergence_of_non_log_probabilities")  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.positive = False

    def forward(self, forward: Any) -> None:
        """Whether the output passed an operation that makes it positive."""
        if forward.operation is not None:
            name = forward.operation.name()
            self.positive = name.startswith(("Exp", "Softplus", "Relu", "Sigmoid", "Abs"))

    def loss(self, call: LossCall) -> None:
        """Compare the targets of the first calls with what the loss asks for."""
        if not call.grad or call.step > 60 or call.prediction is None:
            return
        name = loss_name(call)
        if name in ("cosineembedding", "marginranking"):
            self._signs(call.others[0] if call.others else None)
        elif name in ("hingeembedding", "softmargin"):
            self._signs(call.target)
        elif name == "ctc":
            self._ctc(call)
        elif name == "poissonnll":
            self._counts(call)
        elif name == "kldiv":
            self._divergence(call.prediction)

    def _often(self, rule: str, wrong: bool) -> bool:
        self.count[rule] = self.count[rule] + 1 if wrong else 0
        return self.count[rule] >= 3

    def _signs(self, target: Tensor | None) -> None:
        if target is None or target.numel() == 0:
            return
        wrong = float((target.abs() != 1).double().mean())
        if self._often("signs", wrong > 0.05):
            self.report(
                f"{wrong:.0%} of the targets are neither 1 nor -1, as this loss asks for: it gives "
                "them no or the wrong gradient.",
                "Code the targets as 1 and -1 (2 * y - 1).",
                measured={"share": wrong},
                threshold={"share": 0.0},
            )

    def _ctc(self, call: LossCall) -> None:
        out, target = call.prediction, call.target
        assert out is not None
        total = out.double().exp().sum(-1)
        if self._often("ctc", float((total - 1).abs().median()) > 0.05):
            self.report(
                f"CTC is applied to outputs that are not log-probabilities: exp(output) sums to "
                f"{float(total.median()):.3g} instead of 1.",
                "Apply log_softmax over the last dimension.",
                rule="ctc_of_non_log_probabilities",
                measured={"row sum": float(total.median())},
                threshold={"row sum": 1.0},
            )
        blank = call.options.get("blank", getattr(call.criterion, "blank", 0))
        lengths = call.others[1] if len(call.others) > 1 else None
        if target is None or lengths is None or not isinstance(blank, int):
            return
        labels = target
        if target.ndim == 2:
            inside = torch.arange(target.shape[1], device=target.device)[None] < lengths[:, None]
            labels = target[inside]
        share = float((labels == blank).double().mean()) if labels.numel() else 0.0
        if self._often("blank", share > 0.5 / max(out.shape[-1], 2)):
            self.report(
                f"The blank of CTC is {blank}, and {share:.0%} of the labels are {blank}.",
                "Begin the labels at 1, or move the blank to the last class (blank=C-1).",
                rule="blank_is_a_label",
                measured={"share": share},
                threshold={"share": 0.0},
            )

    def _divergence(self, out: Tensor) -> None:
        """Whether exp(output) sums to one over any axes that a distribution may have."""
        if out.ndim < 2 or out.numel() == 0:
            return
        axes = {(1,), (out.ndim - 1,), tuple(range(1, out.ndim)), tuple(range(out.ndim))[-2:]}
        sums = [out.double().exp().sum(axis) for axis in sorted(axes)]
        wrong = min(float((total - 1).abs().median()) for total in sums)
        if self._often("divergence", wrong > 0.05):
            plain = float((out.double().sum(1) - 1).abs().median()) < 0.01 and bool(
                (out >= 0).all()
            )
            self.report(
                "KLDivLoss gets outputs that are not log-probabilities"
                + (" but probabilities" if plain else "")
                + f": exp(output) sums to {float(sums[0].median()):.3g} instead of 1.",
                "Apply log_softmax, not softmax, to the output; the target stays a probability.",
                rule="divergence_of_non_log_probabilities",
                measured={"row sum": float(sums[0].median())},
                threshold={"row sum": 1.0},
            )

    def _counts(self, call: LossCall) -> None:
        logarithm = call.options.get("log_input", getattr(call.criterion, "log_input", True))
        if self._often("rate", bool(logarithm) and self.positive):
            self.report(
                "The Poisson loss takes the output for a logarithm (log_input=True), but the model "
                "ends with an operation that makes it positive.",
                "Remove that operation, or set log_input=False.",
                rule="rate_given_as_logarithm",
            )
        if call.target is not None and self._often("negative", bool((call.target < 0).any())):
            self.report(
                "The Poisson loss gets negative counts as targets.",
                "Give it counts, not normalized values.",
                rule="count_negative",
                measured={"least": float(call.target.min())},
                threshold={"least": 0.0},
            )


RULES: tuple[type[Rule], ...] = (Settings, Arguments, ZeroLoss, SignsAndBlanks)
