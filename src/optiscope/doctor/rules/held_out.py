"""Evaluation against training: other labels, other inputs, other weights, a loss that cannot be.

In the first epoch the loss of a batch is taken before the batch is learned, so that it says how the
model does on new data. An evaluation that is far worse then does not measure overfitting.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.doctor.alive import instances_of
from optiscope.doctor.rule import Rule
from optiscope.doctor.rules.modes import batch_norms
from optiscope.monitor.events import Forward, LossCall, WatchedStep
from optiscope.monitor.hooks import Hooks
from optiscope.monitor.session import Session

__all__ = ["RULES", "Evaluation"]

MOST_ROWS = 20_000


@dataclass
class Evaluation:
    """What was seen between two steps: losses [(value, samples)], samples, targets, outputs."""

    step: int
    losses: list[tuple[float, int]] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    size: int = 0

    @property
    def loss(self) -> float:
        """Mean loss over samples."""
        total = sum(n for _, n in self.losses)
        return sum(v * n for v, n in self.losses) / total if total else math.nan


class _AfterEvaluation(Rule):
    """Collects one evaluation and hands it on when training goes on, or ends."""

    PASSES = 12

    def __init__(self) -> None:
        super().__init__()
        self.open: Evaluation | None = None
        self.number = 0

    def forward(self, forward: Forward) -> None:
        """Samples evaluated without a graph, in evaluation mode or with no mode to set."""
        if forward.grad:
            self._close()
            return
        if self.session.step < 5 or self.number >= self.PASSES or forward.in_step:
            return
        if self.open is None:
            self.open = Evaluation(self.session.step)
        if forward.rows is not None and self.open.size < MOST_ROWS:
            self.open.rows.append(forward.rows)
            self.open.size += len(forward.rows)

    def loss(self, call: LossCall) -> None:
        """Losses and targets of the evaluation."""
        held = self.open
        if held is None or call.grad or call.value is None or call.target is None:
            return
        if call.value.numel() != 1 or call.target.ndim == 0 or held.size >= MOST_ROWS:
            return
        if not _direct(call) or not _is_mean(call.criterion):
            return  # outputs in other units than in training, for one
        held.losses.append((float(call.value), len(call.target)))
        held.targets.append(call.target)
        if call.prediction is not None and call.prediction.ndim == 2:
            held.outputs.append(call.prediction)

    def finish(self) -> None:
        """The last evaluation."""
        self._close()

    def _close(self) -> None:
        held, self.open = self.open, None
        if held is not None and held.size >= 50:
            self.number += 1
            self.judge(held)

    def judge(self, held: Evaluation) -> None:
        """What an evaluation says."""


def _direct(call: LossCall) -> bool:
    """Whether the loss was given the model's own output."""
    out = None if call.forward is None else call.forward.output
    given = call.prediction
    return out is not None and given is not None and out.data_ptr() == given.data_ptr()


def _is_mean(criterion: Any) -> bool:
    """Whether the loss does not grow with the batch, as far as it says."""
    known = getattr(criterion, "reduction", None)
    return known == "mean" or (known is None and not isinstance(criterion, torch.nn.Module))


class Unlike(_AfterEvaluation):
    """Evaluations that are far worse than training can make them, or coded differently."""

    name = "evaluation_unlike_training"
    family = "evaluation"
    also = ("labels_differ_train_eval", "targets_differ_train_eval", "evaluation_is_random")

    def __init__(self) -> None:
        super().__init__()
        self.worse = self.coded = self.random = 0
        self.previous: Evaluation | None = None
        self.trained = 0
        self.distinct: set[int] = set()
        self.targets: list[tuple[float, float]] = []
        self.norms: bool | None = None
        self.direct = False

    def forward(self, forward: Forward) -> None:
        """Count the samples trained on, while it is early."""
        super().forward(forward)
        if forward.grad and forward.rows is not None and self.number < 3 and self.trained < 50_000:
            rows = forward.rows
            self.trained += len(rows)
            if rows.device.type == "cpu":
                self.distinct.update(rows.tolist())

    def loss(self, call: LossCall) -> None:
        """Mean and deviation of the first training targets."""
        super().loss(call)
        if call.grad:
            self.direct = _direct(call)
        if call.grad and self.direct and len(self.targets) < 20 and call.target is not None:
            t = call.target
            if t.is_floating_point() and t.numel() > 1:
                self.targets.append((float(t.mean()), float(t.std())))

    def judge(self, held: Evaluation) -> None:
        """Compare with training and with the evaluation before."""
        self._worse(held)
        self._labels(held)
        self._targets(held)
        self._random(held)
        self.previous = held

    def _worse(self, held: Evaluation) -> None:
        early = self.number <= 3 and self.trained <= 2.3 * len(self.distinct)
        losses = [v for s, v in self.session.loss_values if s < held.step and math.isfinite(v)]
        if not early or len(losses) < 15 or not held.losses or self.session.other_optimizers:
            return
        if len(self.session.steps) > 1 or not self.direct:
            return
        recent = sum(losses[-10:]) / 10
        first = sum(losses[:5]) / 5
        if self.norms is None:
            self.norms = bool(batch_norms(self.session.model))
        factor = 4.0 if self.norms else 2.0  # running statistics lag at first
        loss = held.loss
        worse = recent > 0 and loss > factor * max(losses[-10:]) and loss - recent > 0.25 * first
        self.worse = self.worse + 1 if worse else 0
        if self.worse >= 2 or (worse and loss > 3 * factor * max(*losses[-10:], first)):
            self.report(
                f"The loss in evaluation is {loss:.3g}, in training {recent:.3g} on batches that "
                "were new to the model: this is not overfitting, the evaluation differs.",
                "Compare the evaluation's inputs, labels, mode, weights and loss with those of "
                "training.",
                measured={"loss": loss},
                threshold={"loss": factor * max(losses[-10:])},
                confidence=0.9,
            )

    def _labels(self, held: Evaluation) -> None:
        if not held.outputs or len(held.outputs) != len(held.targets):
            return
        target = held.targets[0]
        if target.is_floating_point() or target.ndim != 1 or held.outputs[0].shape[1] > 64:
            return
        outputs, labels = torch.cat(held.outputs), torch.cat(held.targets)
        if outputs.shape[0] != labels.shape[0] or outputs.shape[1] < 3 or len(labels) < 50:
            return
        guess = outputs.argmax(1)
        right = float((guess == labels).double().mean())
        names, agreed = [], 0
        for c in guess.unique():
            values, counts = labels[guess == c].unique(return_counts=True)
            names.append(int(values[counts.argmax()]))
            agreed += int(counts.max())
        share = agreed / len(labels)
        differs = share > 0.7 and right < 0.4 * share and len(set(names)) == len(names) >= 3
        self.coded = self.coded + 1 if differs else 0
        if self.coded >= 2:
            self.report(
                f"{right:.0%} of the evaluated samples are classified as labeled, but {share:.0%} "
                "would be if the classes were renamed: evaluation labels are coded "
                "differently.",
                "Use one mapping from classes to numbers (class_to_idx) for all splits.",
                rule="labels_differ_train_eval",
                severity="error",
                measured={"right": right, "right with other names": share},
                threshold={"right": 0.4 * share},
            )

    def _targets(self, held: Evaluation) -> None:
        if len(self.targets) < 10 or not held.targets or not held.targets[0].is_floating_point():
            return
        if self.session.other_optimizers:
            return
        values = torch.cat([t.reshape(-1) for t in held.targets]).double()
        m = sum(a for a, _ in self.targets) / len(self.targets)
        d = sum(b for _, b in self.targets) / len(self.targets)
        if d <= 0 or len(values) < 50:
            return
        spread = max(abs(a - m) for a, _ in self.targets) / d
        shift, factor = abs(float(values.mean()) - m) / d, float(values.std()) / d
        if shift > max(1.5, 5 * spread) or factor > 4 or factor < 1 / 4:
            self.report(
                f"Evaluation targets differ from training targets: mean {float(values.mean()):.3g} "
                f"against {m:.3g}, standard deviation {float(values.std()):.3g} against {d:.3g}.",
                "Scale the targets of all splits alike (with the training data's mean and "
                "deviation), or undo the scaling before both are compared.",
                rule="targets_differ_train_eval",
                measured={"shift": shift, "factor": factor},
                threshold={"shift": 1.5, "factor": 4.0},
                confidence=0.9,
            )

    def _random(self, held: Evaluation) -> None:
        """The same labels in the same order, and other inputs each time."""
        old = self.previous
        if old is None or not held.targets or held.targets[0].is_floating_point():
            return
        if held.targets[0].ndim != 1 or self.session.fingerprint.varying < 12:
            return
        if len(held.rows) != len(held.targets) or len(old.rows) != len(old.targets):
            return
        labels, before = torch.cat(held.targets), torch.cat(old.targets)
        rows, known = torch.cat(held.rows), torch.cat(old.rows)
        if labels.shape != before.shape or rows.shape != known.shape or len(rows) != len(labels):
            return
        distinct = len(labels.unique())
        if distinct < 2 or distinct == len(labels) or not torch.equal(labels, before):
            return
        steps = labels[1:] - labels[:-1]
        if bool((steps >= 0).all()):
            return
        changed = float((rows != known).double().mean())
        self.random = self.random + 1 if changed > 0.3 else 0
        if self.random >= 2:
            self.report(
                f"The evaluation has the same labels in the same order each time, but "
                f"{changed:.0%} of its inputs are new: augmentation or noise is applied in "
                "evaluation too.",
                "Give the evaluation its own transform without random parts.",
                rule="evaluation_is_random",
                measured={"changed": changed},
                threshold={"changed": 0.3},
                confidence=0.9,
            )


class WeightsMoved(Rule):
    """Weights that are others after every evaluation."""

    name = "weights_changed_by_evaluation"
    family = "evaluation"
    severity = "error"
    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.evaluated = False
        self.times = 0
        self.otherwise = False

    def forward(self, forward: Forward) -> None:
        """An evaluation happens."""
        if not forward.grad and not forward.in_step:
            self.evaluated = True

    def after_step(self, view: WatchedStep) -> None:
        """What comes next is after this step."""
        self.evaluated = False

    def before_step(self, view: WatchedStep) -> None:
        """Compare after an evaluation, and at looked-at steps without one."""
        if view.index or self.otherwise or not (self.evaluated or view.look) or view.closure:
            return
        parameter, values = view.sentinel, view.left
        if parameter is None or values is None or parameter.shape != values.shape:
            return
        changed = not torch.equal(parameter.detach(), values)
        if not self.evaluated:
            self.otherwise |= changed  # averages, clipping, projections: meant
            return
        self.times = self.times + 1 if changed else 0
        if self.times >= 3:
            self.report(
                f"After each of the last {self.times} evaluations the weights differ from those "
                "before it: training continues from weights that no step produced.",
                "Put the training weights back after evaluating averaged ones, and do not "
                "load a checkpoint there.",
                measured={"evaluations": self.times},
                threshold={"evaluations": 3},
            )


class KeptWeights(Rule):
    """Weights that were kept to be loaded again, but not copied."""

    name = "kept_weights_not_copied"
    family = "evaluation"
    severity = "error"
    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.hooks = Hooks()

    def start(self, session: Session) -> None:
        """Look at what is loaded."""
        super().start(session)
        self.hooks.add(session.model.register_load_state_dict_pre_hook, self._loading)

    def finish(self) -> None:
        """Remove the hook."""
        self.hooks.remove()

    def _loading(self, module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
        """Tensors about to be loaded that are the model's own: loading them changes nothing."""
        if self.session.step == 0:
            return
        pairs = [
            (state.get(f"{prefix}{name}"), p)
            for name, p in module.named_parameters()
            if p.requires_grad and p.numel()
        ]
        given = [(a, p) for a, p in pairs if isinstance(a, Tensor)]
        own = [p for a, p in given if a.device == p.device and a.data_ptr() == p.data_ptr()]
        if given and len(own) == len(given):
            self.report(
                "load_state_dict() got the model's own tensors: what was kept is not a copy but "
                "follows the weights, so that the latest ones are loaded and not the kept ones.",
                "Keep copy.deepcopy(model.state_dict()), or save it to a file.",
                measured={"tensors": len(own)},
                threshold={"tensors": 0},
            )


class Averages(Rule):
    """Averaged weights that were made and never fed."""

    name = "average_never_updated"
    family = "evaluation"
    exact = True
    STEPS = 100

    def finish(self) -> None:
        """Look once, at the end: averaging may begin late."""
        if self.session.step < self.STEPS:
            return
        averages = self._averages()
        if averages:
            averages.clear()
            gc.collect()  # those of earlier runs may be garbage
            averages = self._averages()
        # one that is fed may be this model's, and the others those of earlier runs
        if averages and all(int(item.n_averaged) == 0 for item in averages):
            self.report(
                f"An AveragedModel was made, and update_parameters was not called in "
                f"{self.session.step} steps: it holds the first weights.",
                "Call averaged.update_parameters(model) after every step.",
                measured={"updates": 0},
                threshold={"updates": 1},
            )

    def _averages(self) -> list[torch.optim.swa_utils.AveragedModel]:
        """Averaged models with parameters of the watched model's shapes."""
        shapes = [p.shape for p in self.session.model.parameters()]
        return [
            item
            for item in instances_of(torch.optim.swa_utils.AveragedModel)
            if [p.shape for p in item.module.parameters()] == shapes
        ]


class Plateau(_AfterEvaluation):
    """A schedule that waits for a metric to move the other way."""

    name = "plateau_mode_wrong"
    family = "rate"
    PASSES = 40

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.bests: list[float] = []
        self.rates: list[float] = []
        self.scheduler: Any = None

    def judge(self, held: Evaluation) -> None:
        """Losses that fall each time, while the schedule's best stays its first."""
        scheduler = self._find()
        best = getattr(scheduler, "best", None)
        if not isinstance(best, int | float) or not math.isfinite(best) or not held.losses:
            return
        self.losses.append(held.loss)
        self.bests.append(float(best))
        self.rates.append(min(float(g["lr"]) for g in scheduler.optimizer.param_groups))
        n = len(self.losses)
        if n < 3 or len(set(self.bests)) > 1 or self.bests[-1] in (0.0, 1.0):
            return
        falls = all(b < a for a, b in itertools.pairwise(self.losses[:3]))
        bad = int(getattr(scheduler, "num_bad_epochs", 0))
        if falls and self.losses[2] < 0.7 * self.losses[0] and (
            bad >= 2 or self.rates[-1] < self.rates[0]
        ):  # fmt: skip
            self.report(
                f'ReduceLROnPlateau (mode "{scheduler.mode}") has seen nothing better than '
                f"{best:.3g} for {n} evaluations, while their loss fell each time to "
                f"{self.losses[-1]:.3g}: it mistakes improvement for deterioration.",
                'Use mode="min" for a loss and mode="max" for an accuracy.',
                measured={"bad epochs": bad},
                confidence=0.9,
            )

    def _find(self) -> Any:
        if self.scheduler is None:
            given = [s() for s in self.session.schedulers]
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
            for item in given or instances_of(plateau):
                if isinstance(item, plateau) and any(
                    item.optimizer is o for o in self.session.optimizers
                ):
                    self.scheduler = item
                    break
        return self.scheduler


class FeaturesReordered(Rule):
    """Columns or colors that stand in another order in evaluation."""

    name = "features_reordered"
    family = "inputs"
    severity = "error"
    SAMPLES = 100

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[bool, list[Tensor]] = {True: [], False: []}
        self.sizes = {True: 0, False: 0}
        self.done = False

    def forward(self, forward: Forward) -> None:
        """Collect one value a sample and feature, of the first samples of each kind."""
        x = forward.input
        if self.done or x is None or not x.is_floating_point() or x.ndim not in (2, 4):
            return
        if not 2 <= x.shape[1] <= 256 or self.sizes[forward.grad] >= 4 * self.SAMPLES:
            return
        if not forward.grad and self.session.step < 5:
            return
        values = x.detach().float()
        self.sums[forward.grad].append(values.mean((2, 3)) if x.ndim == 4 else values)
        self.sizes[forward.grad] += len(values)
        if min(self.sizes.values()) >= self.SAMPLES and not forward.grad:
            self._judge()

    def _judge(self) -> None:
        self.done = True
        pair = [torch.cat(self.sums[kind]).double() for kind in (True, False)]
        if pair[0].shape[1] != pair[1].shape[1]:
            return
        (a, s), (b, _) = [(v.mean(0), v.std(0)) for v in pair]
        error = (s / min(len(v) for v in pair) ** 0.5).clamp_min(1e-9)
        z = ((a - b) / error).abs()
        moved = z > 12
        if int(moved.sum()) < 2:
            return
        left, right = a[moved].sort().values, b[moved].sort().values
        apart = float((a - b)[moved].abs().mean())
        matched = float((left - right).abs().mean())
        if matched < 0.15 * apart and apart > 0.5 * float(s[moved].mean()):
            self.report(
                f"{int(moved.sum())} features have each other's means in evaluation: their order "
                "is not that of training.",
                "Select columns by name, in one order (RGB or BGR, for colors), for all splits.",
                where=[f"feature {i}" for i in moved.nonzero()[:, 0].tolist()[:10]],
                measured={"features": int(moved.sum()), "z": float(z.max())},
                threshold={"z": 12.0},
            )


RULES: tuple[type[Rule], ...] = (
    Unlike,
    WeightsMoved,
    KeptWeights,
    Averages,
    Plateau,
    FeaturesReordered,
)
