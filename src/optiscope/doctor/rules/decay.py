"""Weight decay: how much of a step it is, and what it acts on."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from torch import Tensor

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import WatchedStep, at_looks

__all__ = ["RULES"]

DECOUPLED = ("AdamW", "AdamWScheduleFree", "SGDW", "Lion", "Muon", "NAdamW", "RAdamW")


class Decay(Rule):
    """Weight decay that outweighs the gradient, or acts on nothing but biases."""

    name = "decay_dominates"
    family = "decay"
    also = ("decay_on_wrong_parameters",)
    LOOKS = 6

    def __init__(self) -> None:
        super().__init__()
        self.ratios: deque[float] = deque(maxlen=self.LOOKS)
        self.checked = False

    @at_looks
    def before_step(self, view: WatchedStep) -> None:
        """Compare the decay with the gradient at looked-at steps."""
        if not view.look or view.closure:
            return
        groups = [g for g in view.optimizer.param_groups if g.get("weight_decay")]
        if not groups:
            return
        if not self.checked:
            self.checked = True
            self._wrong(view)
        decoupled = type(view.optimizer).__name__ in DECOUPLED or bool(
            groups[0].get("decoupled_weight_decay")
        )
        if decoupled:
            self._decoupled(view, groups)
            return
        decay = gradient = 0.0
        for group in groups:
            wd = float(group["weight_decay"])
            for p in group["params"]:
                if p.grad is None or p.grad.is_sparse or p.ndim < 2:
                    continue
                decay += float((wd * p.detach().norm()) ** 2)
                gradient += float(p.grad.norm() ** 2)
        if gradient == 0 and decay == 0:
            return
        self.ratios.append((decay / max(gradient, 1e-300)) ** 0.5)
        middle = sorted(self.ratios)[len(self.ratios) // 2]
        if len(self.ratios) == self.LOOKS and middle > 1 and self._loss_is_high():
            self.report(
                f"Weight decay pulls {middle:.2g} times as hard as the gradient, and the loss has "
                "hardly fallen.",
                "Lower weight_decay (usual values lie between 1e-5 and 1e-2).",
                measured={"ratio": middle},
                threshold={"ratio": 1.0},
            )

    def _decoupled(self, view: WatchedStep, groups: list[dict[str, Any]]) -> None:
        """Steps in which decoupled decay halves a weight: less than 600 outlast no training."""
        shrink = max(float(g["lr"]) * float(g["weight_decay"]) for g in groups)
        if type(view.optimizer).__name__ == "Muon" or shrink <= 0:
            return
        self.ratios.append(shrink)
        middle = sorted(self.ratios)[len(self.ratios) // 2]
        if len(self.ratios) == self.LOOKS and middle > 1.2e-3:
            half = math.log(2) / middle
            self.report(
                f"Weight decay halves every weight in {half:.0f} steps.",
                "Lower weight_decay (usual values for decoupled decay lie between 0.01 and 0.1).",
                measured={"decay per step": middle},
                threshold={"decay per step": 1.2e-3},
                confidence=0.8,
            )

    def _loss_is_high(self) -> bool:
        values = [v for _, v in self.session.loss_values if math.isfinite(v)]
        if len(values) < 20:
            return False
        return sum(values[-10:]) / 10 > 0.6 * sum(values[:3]) / 3

    def _wrong(self, view: WatchedStep) -> None:
        """Groups with decay hold only vectors, groups without hold the matrices."""
        with_decay: list[Tensor] = []
        without: list[Tensor] = []
        for group in view.optimizer.param_groups:
            (with_decay if group.get("weight_decay") else without).extend(group["params"])
        if not with_decay or not without:
            return
        if all(p.ndim < 2 for p in with_decay) and any(p.ndim >= 2 for p in without):
            self.report(
                "Weight decay acts on biases and norms only; the weight matrices have none.",
                "Exchange the two parameter groups.",
                rule="decay_on_wrong_parameters",
                where=[view.name(p) for p in with_decay][:20],
                measured={"matrices": 0},
                confidence=0.95,
            )


RULES: tuple[type[Rule], ...] = (Decay,)
