"""Modes: training and evaluation mode, batch norm and dropout."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, WatchedStep
from optiscope.monitor.outputs import main_output
from optiscope.monitor.probe import output_at, rows_of
from optiscope.monitor.session import Session

__all__ = ["RULES"]

NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
)
DROPS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def batch_norms(model: nn.Module) -> list[tuple[str, Any]]:
    """Batch norms that keep running statistics."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, NORMS) and module.track_running_stats
    ]


def dropouts(model: nn.Module) -> list[tuple[str, Any]]:
    """Dropout layers that drop something."""
    return [(n, m) for n, m in model.named_modules() if isinstance(m, DROPS) and m.p > 0]


def _names(modules: Iterable[tuple[str, Any]]) -> list[str]:
    return [name or "model" for name, _ in modules]


class Modes(Rule):
    """Training in evaluation mode, and evaluation in training mode."""

    name = "trained_in_eval"
    family = "modes"
    severity = "error"
    exact = True
    also = ("evaluated_in_train",)
    QUIET = 8

    def __init__(self) -> None:
        super().__init__()
        self.norms: list[tuple[str, Any]] | None = None
        self.drops: list[tuple[str, Any]] = []
        self.frozen_steps = 0
        self.was_training = False
        self.last_burst = -1
        self.awake: list[tuple[str, Any]] = []
        self.awake_since = 0

    def _modules(self) -> None:
        if self.norms is None:
            model = self.session.model
            self.norms, self.drops = batch_norms(model), dropouts(model)

    def forward(self, forward: Forward) -> None:
        """Evaluation while batch norm or dropout is in training mode."""
        self._modules()
        assert self.norms is not None
        step = self.session.step
        if forward.grad or step != self.last_burst:
            self._say_awake()
        elif not forward.training:
            self.awake = []  # in both modes, one after the other: meant
        if forward.grad or step == self.last_burst:
            return
        quiet = step - self.last_burst if self.last_burst >= 0 else step
        self.last_burst = step
        active = [m for m in (*self.norms, *self.drops) if m[1].training]
        if not active or not forward.training or quiet < self.QUIET:
            return
        if self.norms and all(m.momentum is None for _, m in self.norms):
            return  # swa_utils.update_bn: averages of the whole set, in training mode on purpose
        self.awake, self.awake_since = active, step

    def finish(self) -> None:
        """Judge the last evaluation."""
        self._say_awake()

    def _say_awake(self) -> None:
        """The evaluation is over, and it was all in training mode."""
        active, self.awake = self.awake, []
        if not active:
            return
        kinds = " and ".join(
            words
            for words, there in (
                ("batch norm", any(isinstance(m, NORMS) for _, m in active)),
                ("dropout", any(isinstance(m, DROPS) for _, m in active)),
            )
            if there
        )
        self.report(
            f"The model was evaluated (no gradient) in training mode: {kinds} behaves as in "
            "training, and the evaluation changes with its batches.",
            "Call model.eval() before evaluation and model.train() after it.",
            rule="evaluated_in_train",
            where=_names(active)[:20],
            measured={"layers in training mode": len(active)},
            threshold={"layers in training mode": 0},
            step=self.awake_since,
        )

    def after_step(self, view: WatchedStep) -> None:
        """Steps whose forward passes were all made in evaluation mode."""
        if view.index:
            return
        self._modules()
        assert self.norms is not None
        training = [f for f in view.forwards if f.grad]
        if not training or not (self.norms or self.drops):
            return
        modes = [f.training for f in training]
        self.was_training |= any(modes)
        asleep = [m for m in (*self.norms, *self.drops) if not m[1].training]
        self.frozen_steps = self.frozen_steps + 1 if not any(modes) and asleep else 0
        if self.frozen_steps >= 3:
            self.report(
                "The model is trained in evaluation mode: dropout drops nothing and batch norm "
                "uses its running statistics"
                + (" since the evaluation before." if self.was_training else "."),
                "Call model.train() at the start of every epoch.",
                where=_names(asleep)[:20],
                measured={"steps": self.frozen_steps},
                threshold={"steps": 0},
            )


class BatchNorm(Rule):
    """Batch norm on one sample, with statistics that never move, or with a confused momentum."""

    name = "batch_norm_of_one"
    family = "modes"
    exact = True
    also = (
        "batch_norm_statistics_unused",
        "batch_norm_momentum_confused",
        "frozen_batch_norm_moves",
    )

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[tuple[str, Any]] = []
        self.moving = 0
        self.norms: list[tuple[str, Any]] | None = None
        self.single = 0
        self.checked = False

    def start(self, session: Session) -> None:
        """Note batch norms that come with statistics of an earlier training."""
        super().start(session)
        self.loaded = [
            (name, m)
            for name, m in batch_norms(session.model)
            if m.running_mean is not None and bool((m.running_mean != 0).any())
        ]

    def _frozen(self) -> None:
        """Weights that are frozen while the statistics beside them go on."""
        moving = [
            (n, m)
            for n, m in self.loaded
            if m.training and m.weight is not None and not m.weight.requires_grad
        ]
        self.moving = self.moving + 1 if moving else 0
        if self.moving == 3:
            self.report(
                f"{len(moving)} frozen batch norms are in training mode: their weights stay, and "
                "their running statistics are overwritten by those of the new data.",
                "Put them into evaluation mode after model.train() (module.eval()), or train "
                "their weights too.",
                rule="frozen_batch_norm_moves",
                where=_names(moving)[:20],
                measured={"layers": len(moving)},
                threshold={"layers": 0},
                confidence=0.95,
            )

    def forward(self, forward: Forward) -> None:
        """Batch size in training, statistics at the first evaluation."""
        if self.loaded and forward.grad and forward.training and self.session.step < 20:
            self._frozen()
        if self.norms is None:
            self.norms = batch_norms(self.session.model)
            confused = [
                (n, m) for n, m in self.norms if m.momentum is not None and m.momentum >= 0.9
            ]
            if confused:
                self.report(
                    f"Batch norm has momentum {confused[0][1].momentum}: in torch this is the "
                    "weight of the newest batch, so that the running statistics are those of "
                    "the last batch.",
                    "Use 1 - momentum: 0.01 for what other libraries call 0.99.",
                    rule="batch_norm_momentum_confused",
                    where=_names(confused),
                    measured={"momentum": confused[0][1].momentum},
                    threshold={"momentum": 0.9},
                )
        if not self.norms:
            return
        if forward.grad and forward.training and forward.inputs:
            active = any(m.training for _, m in self.norms)
            spatial = forward.inputs[0].ndim
            self.single = self.single + 1 if forward.size == 1 and active and spatial > 1 else 0
            if self.single == 5:
                self.report(
                    "Batch norm is trained with one sample at a time: it normalizes each sample "
                    "by itself, and its running statistics fit no sample.",
                    "Use larger batches, GroupNorm or LayerNorm.",
                    where=_names(self.norms),
                    measured={"samples": 1},
                    threshold={"samples": 2},
                )
        if not forward.grad and not forward.training and self.session.step >= 10:
            self._unused()

    def _unused(self) -> None:
        if self.checked and self.session.step < 100:
            return
        if self.session.step > 1000:
            return
        self.checked = True
        assert self.norms is not None
        lagging = [
            (name, m)
            for name, m in self.norms
            if m.momentum is not None
            and 0 < m.momentum < 5e-3
            and m.num_batches_tracked is not None
            and (1 - m.momentum) ** int(m.num_batches_tracked) > 0.5
        ]
        if lagging and self.session.step >= 100:
            m = lagging[0][1]
            share = (1 - m.momentum) ** int(m.num_batches_tracked)
            self.report(
                f"Batch norm has momentum {m.momentum}: after {self.session.step} steps "
                f"{share:.0%} of the running statistics are still their first values, and "
                "evaluation uses them.",
                "momentum is the weight of the newest batch: 0.1 is usual, 0.01 for long runs.",
                rule="batch_norm_momentum_confused",
                where=_names(lagging),
                measured={"share": share},
                threshold={"share": 0.5},
            )
        still = [
            (name, m)
            for name, m in self.norms
            if m.running_mean is not None
            and not m.training
            and bool((m.running_mean == 0).all())
            and bool((m.running_var == 1).all())
        ]
        if still:
            self.report(
                f"The running statistics of {len(still)} batch norms are still mean 0 and variance "
                f"1 after {self.session.step} steps, and evaluation uses them.",
                "Train in training mode with a momentum above 0, and evaluate the module that was "
                "trained.",
                rule="batch_norm_statistics_unused",
                where=_names(still),
                measured={"layers": len(still)},
                threshold={"layers": 0},
            )


class Dropout(Rule):
    """Dropout that drops nearly everything, or twice."""

    name = "dropout_too_high"
    family = "modes"
    exact = True
    also = ("dropout_twice",)

    def forward(self, forward: Forward) -> None:
        """Look once at the rates, and at the order of calls."""
        if getattr(self, "done", False) or not forward.grad:
            return
        self.done = True
        drops = dropouts(self.session.model)
        high = [(n, m) for n, m in drops if m.p >= 0.8]
        if high:
            self.report(
                f"Dropout drops {high[0][1].p:.0%} of the units.",
                f"p is the share that is dropped, not kept: p={1 - high[0][1].p:.2g} keeps "
                f"{high[0][1].p:.0%}.",
                where=_names(high),
                measured={"p": high[0][1].p},
                threshold={"p": 0.8},
                confidence=0.95,
            )
        for name, module in self.session.model.named_modules():
            if type(module) is not nn.Sequential:
                continue
            children = list(module.named_children())
            for (_, first), (second_name, second) in itertools.pairwise(children):
                if isinstance(first, DROPS) and isinstance(second, DROPS) and first.p and second.p:
                    keep = (1 - first.p) * (1 - second.p)
                    self.report(
                        f"Two dropouts follow each other: together they keep {keep:.0%}.",
                        "Remove one of them.",
                        rule="dropout_twice",
                        where=[f"{name}.{second_name}".lstrip(".")],
                        measured={"kept": keep},
                    )


class OutputDropped(Rule):
    """Dropout behind the last layer: entries of the output itself are set to zero."""

    name = "dropout_of_output"
    family = "modes"
    LOOKS = 3

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.done = False

    def forward(self, forward: Forward) -> None:
        """Exact zeros among positive and negative outputs, which evaluation mode does not have."""
        out = forward.output
        if self.done or not forward.grad or not forward.training or not forward.look:
            return
        if out is None or not out.is_floating_point() or out.numel() < 16 or out.ndim < 2:
            return
        if not forward.args or not dropouts(self.session.model):
            self.done = not dropouts(self.session.model)
            return
        values = out.detach()
        share = float((values == 0).double().mean())
        both = bool((values > 0).any()) and bool((values < 0).any())
        self.count = self.count + 1 if both and 0.02 < share < 0.95 else 0
        if self.count < self.LOOKS:
            self.done = self.session.step > 200
            return
        self.done = True
        small = rows_of(forward, 32)
        whole = None if small is None else output_at(self.session, small, evaluation=True)
        out = None if whole is None else main_output(whole)
        if out is not None and float((out == 0).double().mean()) < 0.2 * share:
            self.report(
                f"Dropout sets {share:.0%} of the output's entries to zero in training: the loss "
                "is taken of values that no layer computed.",
                "Remove the dropout after the last layer, or put it before that layer.",
                measured={"share": share},
                threshold={"share": 0.02},
            )


class RandomEvaluation(Rule):
    """Dropout that is still active in evaluation mode."""

    name = "dropout_in_evaluation"
    family = "modes"
    severity = "error"
    exact = True

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    def forward(self, forward: Forward) -> None:
        """Watch which random operations an evaluation calls (twice at most)."""
        if forward.grad or forward.training or self.tries >= 2 or not forward.inputs:
            return
        if any(m.training for m in self.session.model.modules()):
            return
        if self.session.step < 1:
            return
        small = rows_of(forward, 4)
        if small is None:
            return
        self.tries += 1
        watched = _RandomOperations()
        with watched:
            output_at(self.session, small)
        if watched.drops:
            self.report(
                f"The model is in evaluation mode and drops units at random ({watched.drops} "
                "dropout operations): predictions change from call to call.",
                "Use nn.Dropout as a submodule, or F.dropout(x, p, training=self.training).",
                measured={"operations": watched.drops},
                threshold={"operations": 0},
            )


class _RandomOperations(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the operations that dropout is made of."""

    def __init__(self) -> None:
        torch.utils._python_dispatch.TorchDispatchMode.__init__(self)
        self.drops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = str(func)
        if "native_dropout" in name or "bernoulli_.float" in name:
            self.drops += 1
        return func(*args, **(kwargs or {}))


class GeneratorReset(Rule):
    """Random numbers that are the same in every step."""

    name = "generator_reset"
    family = "modes"
    severity = "error"
    exact = True
    STEPS = 5

    def __init__(self) -> None:
        super().__init__()
        self.state: torch.Tensor | None = None
        self.same = 0
        self.step = -1
        self.used = False
        self.drops: list[tuple[str, Any]] | None = None

    def forward(self, forward: Forward) -> None:
        """The generator's state is that of the step before although it was used since."""
        if not forward.grad or forward.in_step or self.session.step > 60:
            return
        if self.session.step == self.step:
            return
        self.step = self.session.step
        state = torch.get_rng_state()
        known = self.state
        again = self.used and known is not None and torch.equal(state, known)
        self.same = self.same + 1 if again else 0
        self.state, self.used = state, False
        if self.same >= self.STEPS:
            self.report(
                "torch's generator is in the same state in every step: dropout and noise are the "
                "same each time.",
                "Call torch.manual_seed once, before the loop.",
                measured={"steps": self.same},
                threshold={"steps": self.STEPS},
            )

    def after_step(self, view: WatchedStep) -> None:
        """Dropout in the forward pass uses the generator; without it nothing is known."""
        if view.number > 60 or view.index or self.state is None:
            return
        if self.drops is None:
            self.drops = dropouts(view.model)
        self.used = any(m.training for _, m in self.drops)


RULES: tuple[type[Rule], ...] = (
    Modes,
    BatchNorm,
    Dropout,
    OutputDropped,
    RandomEvaluation,
    GeneratorReset,
)
