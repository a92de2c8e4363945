"""Evaluation: graphs that nobody uses, and weights that are not meant for it."""

from __future__ import annotations

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, WatchedStep

__all__ = ["RULES"]


class WithGradients(Rule):
    """Evaluation that builds a graph for every batch."""

    name = "evaluated_with_gradients"
    family = "evaluation"
    severity = "warning"
    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.trained = False

    def after_step(self, view: WatchedStep) -> None:
        """Forwards in evaluation mode, before a training one, that were never differentiated."""
        if view.index or len(self.session.steps) > 1 or view.closure:
            return
        modes = [f.training for f in view.forwards if f.grad]
        self.trained |= any(modes)
        idle = [f for f in view.forwards if f.grad and not f.training and f.backwards == 0]
        if not self.trained or not any(modes) or view.number < 3:
            return
        self.count += len(idle)
        if len(idle) >= 2:
            self.report(
                f"{len(idle)} forward passes in evaluation mode built a graph that was never used.",
                "Wrap the evaluation in torch.no_grad() or torch.inference_mode().",
                measured={"forwards": len(idle)},
                threshold={"forwards": 0},
            )


class ScheduleFreeMode(Rule):
    """Schedule-free weights evaluated while the optimizer is in training mode."""

    name = "optimizer_in_train_mode"
    family = "evaluation"
    severity = "error"
    exact = True

    def forward(self, forward: Forward) -> None:
        """Look at the optimizer's mode when the model is evaluated."""
        if forward.grad or forward.training or self.session.step < 3:
            return
        for optimizer in self.session.optimizers:
            if any(group.get("train_mode") is True for group in optimizer.param_groups):
                self.report(
                    "The model is evaluated while its schedule-free optimizer is in training mode: "
                    "these are not the averaged weights.",
                    "Call optimizer.eval() before evaluation and optimizer.train() after it.",
                    measured={"train_mode": 1},
                    threshold={"train_mode": 0},
                )


RULES: tuple[type[Rule], ...] = (WithGradients, ScheduleFreeMode)
