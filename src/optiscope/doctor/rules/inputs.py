"""Inputs: their scale, their difference between training and evaluation, and what is missing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, LossCall, WatchedStep

__all__ = ["RULES"]

NORMALIZING = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.LayerNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.Embedding,
)


class Scale(Rule):
    """Mean and standard deviation of the inputs, in training and in evaluation."""

    name = "inputs_not_normalized"
    family = "inputs"
    also = (
        "inputs_differ_train_eval",
        "inputs_not_finite",
        "inputs_constant",
        "inputs_drift",
        "inputs_scaled_by_batch",
    )
    BATCHES = 10
    WIDE = 20.0

    def __init__(self) -> None:
        super().__init__()
        self.train: list[tuple[float, float]] = []
        self.evaluation: list[tuple[float, float]] = []
        self.first: tuple[float, float] | None = None
        self.normalizes: bool | None = None
        self.wide = 0
        self.by_batch = 0
        self.batches: set[int] = set()

    def forward(self, forward: Forward) -> None:
        """Read the statistics of the first batches, of looked-at ones and of evaluations."""
        x = forward.input
        if x is None or not x.is_floating_point() or x.numel() < 16 or x.ndim < 1:
            return
        if forward.grad:
            if len(self.train) >= self.BATCHES and not forward.look:
                return
        elif self.session.step < 5 or len(self.evaluation) > 200:
            return
        low_cost = x.detach().reshape(-1)
        if low_cost.numel() > 400_000:
            low_cost = low_cost[:: low_cost.numel() // 200_000]
        values = low_cost.float()
        deviation, mean = (float(v) for v in torch.std_mean(values))
        if not (mean == mean and abs(mean) < float("inf") and deviation == deviation):
            bad = float((~torch.isfinite(values)).double().mean())
            if bad > 0:
                self.report(
                    f"{bad:.2%} of the input's entries are not finite.",
                    "Clean the data: fill or remove missing values before training.",
                    rule="inputs_not_finite",
                    severity="error",
                    measured={"share": bad},
                    threshold={"share": 0.0},
                )
            return
        if forward.grad:
            self._training(forward, mean, deviation, x)
        else:
            self._evaluation(mean, deviation)

    def _training(self, forward: Forward, mean: float, deviation: float, x: Tensor) -> None:
        if self.normalizes is None:
            layers = [m for m in self.session.model.modules() if not list(m.children())]
            self.normalizes = bool(layers) and isinstance(layers[0], NORMALIZING)
        if 0 <= self.by_batch < self.BATCHES:
            self._own_statistics(forward, x)
        self.train.append((mean, deviation))
        if len(self.train) > 2 * self.BATCHES:
            del self.train[self.BATCHES]
        if len(self.train) < self.BATCHES:
            return
        means = sum(m for m, _ in self.train[: self.BATCHES]) / self.BATCHES
        deviations = sum(d for _, d in self.train[: self.BATCHES]) / self.BATCHES
        if self.first is None:
            self.first = (means, deviations)
            self._once(means, deviations, x)
        self._drift()

    def _own_statistics(self, forward: Forward, x: Tensor) -> None:
        """Whether mean 0 and deviation 1 are exact in every batch, and not in every sample."""
        if x.ndim < 2 or len(x) < 4 or x.numel() > 400_000 or forward.rows is None:
            self.by_batch = -1
            return
        values = x.detach().double()
        each = values.flatten(1)
        axes = [tuple(range(x.ndim)), (0,), (0, *range(2, x.ndim))]
        own = float(each.mean(1).abs().max()) < 1e-4
        if own or not any(_standard(values, axis) for axis in axes):
            self.by_batch = -1
            return
        self.by_batch += 1
        self.batches.add(int(forward.rows.sum()))
        if self.by_batch == self.BATCHES and len(self.batches) > 1:
            self.report(
                f"The inputs of each of {self.by_batch} batches have mean 0 and deviation 1 to the "
                "last digit: they are scaled by their batch's own statistics, so that a sample "
                "looks different in every batch.",
                "Compute mean and deviation once, from the training data, and use them for all.",
                rule="inputs_scaled_by_batch",
                measured={"batches": self.by_batch},
                threshold={"batches": self.BATCHES},
                confidence=0.97,
            )

    def _once(self, mean: float, deviation: float, x: Tensor) -> None:
        if deviation == 0 and x.shape[0] > 1:
            self.report(
                f"Every entry of every input so far is {mean:.4g}.",
                "Look at the data as the network gets them: a transform, a division by an integer "
                "or a crop removes everything.",
                rule="inputs_constant",
                severity="error",
                measured={"deviation": 0.0},
                threshold={"deviation": 0.0},
            )
            return
        size = max(abs(mean), deviation)
        if self.normalizes or (0.003 < size < self.WIDE):
            return
        self.report(
            f"The inputs have mean {mean:.3g} and standard deviation {deviation:.3g}: weights and "
            "rates are made for values near 1.",
            "Subtract the mean and divide by the standard deviation of the training data.",
            measured={"mean": mean, "deviation": deviation},
            threshold={"deviation": self.WIDE},
        )

    def _drift(self) -> None:
        assert self.first is not None
        recent = self.train[-self.BATCHES :]
        if len(self.train) < 2 * self.BATCHES or self.session.other_optimizers:
            return  # a critic's inputs change with their maker
        mean = sum(m for m, _ in recent) / len(recent)
        deviation = sum(d for _, d in recent) / len(recent)
        spread = max(d for _, d in self.train[: self.BATCHES]) + 1e-12
        factor = deviation / max(self.first[1], 1e-12)
        moved = abs(mean - self.first[0]) / spread
        batch_moves = max(abs(m - self.first[0]) for m, _ in self.train[: self.BATCHES]) / spread
        if factor > 3 or factor < 1 / 3 or moved > max(1.0, 4 * batch_moves):
            self.report(
                f"The training inputs changed: mean {self.first[0]:.3g} -> {mean:.3g}, standard "
                f"deviation {self.first[1]:.3g} -> {deviation:.3g}.",
                "A transform is applied in place to the stored data, again in every epoch: make a "
                "copy.",
                rule="inputs_drift",
                measured={"mean": mean, "deviation": deviation},
                threshold={"mean": self.first[0], "deviation": self.first[1]},
            )

    def _evaluation(self, mean: float, deviation: float) -> None:
        if self.first is None and len(self.train) < 3:
            return
        self.evaluation.append((mean, deviation))
        base = self.train[: self.BATCHES]
        m = sum(a for a, _ in base) / len(base)
        d = sum(b for _, b in base) / len(base)
        if d <= 0:
            return
        spread = max(abs(a - m) for a, _ in base) / d
        e = self.evaluation[-3:]
        em, ed = sum(a for a, _ in e) / len(e), sum(b for _, b in e) / len(e)
        shift, factor = abs(em - m) / d, max(ed, 1e-12) / d
        if shift > max(0.5, 5 * spread) or factor > 2.2 or factor < 1 / 2.2:
            self.report(
                f"Evaluation inputs differ from training inputs: mean {em:.3g} against {m:.3g}, "
                f"standard deviation {ed:.3g} against {d:.3g}.",
                "Use one transform (the training data's mean and deviation) for both.",
                rule="inputs_differ_train_eval",
                measured={"shift": shift, "factor": factor},
                threshold={"shift": 0.5, "factor": 2.2},
                confidence=0.9,
            )


def _standard(values: Tensor, axes: tuple[int, ...]) -> bool:
    """Whether mean and deviation over ``axes`` are 0 and 1, or the deviation of a constant 0."""
    mean, deviation = values.mean(axes), values.std(axes)
    moving = deviation > 1e-3
    near = float((deviation - 1).abs().where(moving, 0).max()) < 1e-3
    return near and bool(moving.any()) and float(mean.abs().max()) < 1e-5


class TargetScale(Rule):
    """Targets so far from the outputs that a run of this length does not reach them."""

    name = "targets_not_scaled"
    family = "inputs"
    LOSSES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
    FACTOR = 30.0
    AT = 60

    def __init__(self) -> None:
        super().__init__()
        self.size: float | None = None
        self.reach = 0.0
        self.moments = (0.0, 0.0)
        self.losses: list[float] = []
        self.done = False

    def loss(self, call: LossCall) -> None:
        """Sizes of target and output at the first step."""
        if self.size is not None or call.target is None or call.prediction is None:
            return
        if call.grad and isinstance(call.criterion, self.LOSSES) and call.target.numel() > 1:
            target = call.target.double()
            self.size = float(target.square().mean().sqrt())
            self.moments = (float(target.mean()), float(target.std()))
            self.reach = float(call.prediction.double().square().mean().sqrt())

    def after_step(self, view: WatchedStep) -> None:
        """Judge once, by how much of the first loss is left."""
        if self.done or view.index or view.number < self.AT or not view.tick:
            return
        self.done = True
        values = [v for _, v in self.session.loss_values if math.isfinite(v)]
        if self.size is None or self.size < self.FACTOR * (1 + self.reach) or len(values) < 30:
            return
        first, last = sum(values[:10]) / 10, sum(values[-10:]) / 10
        if last > 0.9 * first:
            mean, deviation = self.moments
            self.report(
                f"The targets are not scaled (mean {mean:.3g}, deviation {deviation:.3g}; the "
                f"first outputs have size {self.reach:.2g}): after {view.number + 1} steps "
                f"{last / first:.0%} of the first loss is left.",
                "Subtract the targets' mean and divide by their deviation, and undo it for "
                "predictions.",
                measured={"size": self.size, "left": last / first},
                threshold={"size": self.FACTOR * (1 + self.reach), "left": 0.9},
            )


RULES: tuple[type[Rule], ...] = (Scale, TargetScale)
