"""Ownership: which optimizer holds which parameter, and which parameters the loss reaches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optiscope.doctor.alive import instances_of
from optiscope.doctor.rule import Rule, layer
from optiscope.doctor.rules.initialization import is_default
from optiscope.monitor.events import Forward, WatchedStep, at_looks
from optiscope.monitor.graph import graph_leaves

__all__ = ["RULES"]

DECIDE_AT = 2  # steps before this one only collect
UNUSED_AT = 10


class Ownership(Rule):
    """Leaves of the output's graph against the parameters of every optimizer."""

    name = "trainable_not_in_optimizer"
    family = "ownership"
    severity = "error"
    exact = True
    also = ("optimizer_holds_foreign", "optimizer_param_unused")

    def __init__(self) -> None:
        super().__init__()
        self.leaves: dict[int, tuple[Tensor, int]] = {}
        self.inputs: set[int] = set()
        self.with_gradient: set[int] = set()
        self.steps = 0
        self.done = False

    def forward(self, forward: Forward) -> None:
        """Collect the leaves of training forwards; the caller's own inputs are none."""
        if self.done or not forward.nodes:
            return
        inputs = {id(t) for t in forward.inputs}
        for leaf in graph_leaves(forward.nodes):
            if id(leaf) not in inputs:
                known = self.leaves.get(id(leaf))
                self.leaves[id(leaf)] = (leaf, 1 if known is None else known[1] + 1)

    def before_step(self, view: WatchedStep) -> None:
        """Note which parameters have received a gradient, ever."""
        if self.done or view.closure:
            return
        self.with_gradient |= {id(p) for p in view.parameters if p.grad is not None}

    def after_step(self, view: WatchedStep) -> None:
        """Decide after a few steps, when every optimizer has had its turn."""
        if self.done:
            return
        if view.closure:
            self.with_gradient |= {id(p) for p in view.parameters if p.grad is not None}
        self.steps += 1
        if view.number >= DECIDE_AT and self.steps >= DECIDE_AT * len(self.session.steps):
            self._not_owned(view)
            self._foreign(view)
        if view.number >= DECIDE_AT:
            self._unused(view, called_only=True)
        if view.number >= UNUSED_AT:
            self._unused(view, called_only=False)
            self.done = True
            self.leaves.clear()

    def _not_owned(self, view: WatchedStep) -> None:
        owned = self.session.owned()
        missing = [
            leaf
            for leaf, count in self.leaves.values()
            if id(leaf) not in owned
            and leaf.requires_grad
            and (isinstance(leaf, nn.Parameter) or count >= 3)
        ]
        if not missing or _held_by_an_idle_optimizer(missing):
            return
        names = [view.name(p) for p in missing]
        share = sum(p.numel() for p in missing) / max(1, sum(p.numel() for p in view.parameters))
        self.report(
            f"{len(missing)} trainable parameters take part in the loss but no optimizer holds "
            f"them: they never change.",
            "Build the optimizer after the model is final, from model.parameters(); keep layers in "
            "nn.ModuleList, not in a plain list. Freeze what is meant to stay with "
            "requires_grad_(False).",
            where=names,
            measured={"parameters": len(missing), "share": share},
            threshold={"parameters": 0},
        )

    def _foreign(self, view: WatchedStep) -> None:
        inside = {id(p) for p in view.model.parameters()}
        foreign = [
            p
            for p in view.parameters
            if id(p) not in inside
            and id(p) not in self.with_gradient
            and id(p) not in self.leaves
            and p.requires_grad
        ]
        if foreign:
            self.report(
                f"The optimizer holds {len(foreign)} parameters that are not in the model and "
                "never receive a gradient.",
                "Build the optimizer after the model is final: a layer or the whole model was "
                "replaced or copied afterwards.",
                where=[f"tensor {list(p.shape)}" for p in foreign],
                rule="optimizer_holds_foreign",
                measured={"parameters": len(foreign)},
                threshold={"parameters": 0},
            )

    def _unused(self, view: WatchedStep, *, called_only: bool) -> None:
        inside = {id(p) for p in view.model.parameters()}
        held = [p for p in view.parameters if id(p) in inside and p.requires_grad]
        unused = [p for p in held if id(p) not in self.with_gradient and id(p) not in self.leaves]
        if not unused or len(unused) == len(held):
            return
        called = getattr(self.session, "called_modules", {})
        if called_only:
            unused = [p for p in unused if layer(view.names, p) in called]
        if not unused:
            return
        words = "are used in the forward pass, but the loss does not reach them"
        if not called_only:
            words = "never receive a gradient"
        self.report(
            f"{len(unused)} parameters of the optimizer {words}: they never change.",
            "Remove the .detach() or torch.no_grad() after these layers, or call the layers in "
            "forward(). Freeze them if that is intended.",
            where=[view.name(p) for p in unused],
            rule="optimizer_param_unused",
            severity="error" if called_only else "warning",
            measured={"parameters": len(unused)},
            threshold={"parameters": 0},
        )


def _held_by_an_idle_optimizer(parameters: list[Tensor]) -> bool:
    """Whether an optimizer exists that holds ``parameters`` but has not stepped yet."""
    wanted = {id(p) for p in parameters}
    for item in instances_of(Optimizer):
        try:
            wanted -= {id(p) for g in item.param_groups for p in g["params"]}
        except Exception:  # half-built objects of other libraries
            continue
    return not wanted


class ParametersReplaced(Rule):
    """The model's parameters are other objects than those it had."""

    name = "parameters_replaced"
    family = "ownership"
    severity = "error"
    exact = True

    @at_looks
    def after_step(self, view: WatchedStep) -> None:
        """Compare identities at looked-at steps."""
        if not view.look or view.number == 0:
            return
        owned = self.session.owned()
        lost = [
            (name, p)
            for name, p in view.model.named_parameters()
            if p.requires_grad and id(p) not in self.session.names and id(p) not in owned
        ]
        if lost:
            self.report(
                f"{len(lost)} parameters of the model were replaced after the optimizer was built: "
                "it updates tensors that the model no longer uses.",
                "Change weights in place (p.data.copy_, load_state_dict), or build the optimizer "
                "again.",
                where=[name for name, _ in lost],
                measured={"parameters": len(lost)},
                threshold={"parameters": 0},
            )


class FrozenAtRandomInit(Rule):
    """Frozen weights that have exactly torch's default random initialization."""

    name = "frozen_at_random_init"
    family = "ownership"
    severity = "warning"
    exact = True

    def forward(self, forward: Forward) -> None:
        """Look once, at the first training forward."""
        if not forward.grad or forward.number > 200 or getattr(self, "done", False):
            return
        self.done = True
        frozen = []
        for name, module in self.session.model.named_modules():
            weight = getattr(module, "weight", None)
            if (
                isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
                and isinstance(weight, nn.Parameter)
                and not weight.requires_grad
                and is_default(weight)
            ):
                frozen.append(name or "model")
        if frozen:
            self.report(
                f"{len(frozen)} frozen layers hold torch's default random weights: nothing was "
                "loaded into them.",
                "Load the pretrained weights before freezing, or unfreeze the layers.",
                where=frozen,
                measured={"layers": len(frozen)},
                threshold={"layers": 0},
                confidence=0.99,
            )


class OptimizerRecreated(Rule):
    """Several optimizer objects step the same parameters one after the other."""

    name = "optimizer_recreated"
    family = "ownership"
    severity = "error"
    exact = True
    also = ("optimizer_state_lost",)

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[int, tuple[float, int]] = {}
        self.lost = 0
        self.forwards = 0

    def forward(self, forward: Forward) -> None:
        """Count the training forwards since the watched optimizer stepped."""
        if not forward.grad:
            return
        self.forwards += 1
        strangers = self.session.strangers
        if strangers >= 3 and self.forwards >= 3:
            self.report(
                f"{strangers} other optimizer objects have stepped the watched parameters: an "
                "optimizer that is created again forgets its momentum and its second moments.",
                "Make the optimizer once, before the loop.",
                measured={"optimizers": strangers},
                threshold={"optimizers": 3},
                severity="error" if strangers > self.forwards / 4 else "warning",
            )

    def after_step(self, view: WatchedStep) -> None:
        """A step count that does not grow means that the state was thrown away."""
        self.forwards = 0
        if view.number > 60 and not view.look:
            return
        sentinel = view.sentinel
        state = None if sentinel is None else view.optimizer.state.get(sentinel)
        count = state.get("step") if isinstance(state, dict) else None
        if count is None or not isinstance(count, int | float | Tensor):
            self._momentum(view, state)
            return
        if isinstance(count, Tensor) and (count.numel() != 1 or count.device.type != "cpu"):
            return
        value = float(count)
        known = self.counts.get(view.index)
        self.counts[view.index] = (value, view.number)
        if known is None or view.number - known[1] > 1:
            return
        self.lost = self.lost + 1 if value <= known[0] else 0
        self._say(3)

    def _momentum(self, view: WatchedStep, state: Any) -> None:
        """SGD keeps no count: its buffer equals the gradient only at the first step."""
        group = view.optimizer.param_groups[0]
        buffer = state.get("momentum_buffer") if isinstance(state, dict) else None
        if type(view.optimizer) is not torch.optim.SGD or not group.get("momentum"):
            return
        if group.get("weight_decay") or group.get("maximize") or view.closure or view.number == 0:
            return
        sentinel = view.sentinel
        if sentinel is None or sentinel.grad is None or sentinel.device.type != "cpu":
            return
        if not bool((sentinel.grad != 0).any()):
            return
        same = buffer is None or torch.equal(buffer, sentinel.grad)
        self.lost = self.lost + 1 if same else 0
        self._say(3)

    def _say(self, limit: int) -> None:
        if self.lost >= limit:
            self.report(
                f"The optimizer's state started anew in each of the last {self.lost} steps: "
                "momentum and second moments are never used.",
                "Do not clear optimizer.state and do not load the optimizer's state dict in the "
                "loop.",
                rule="optimizer_state_lost",
                measured={"steps": self.lost},
                threshold={"steps": limit},
            )


class TiedBroken(Rule):
    """An embedding and an output layer that hold equal weights in two tensors."""

    name = "copied_not_tied"
    family = "ownership"
    severity = "warning"
    exact = True
    also = ("parameters_share_storage",)

    def forward(self, forward: Forward) -> None:
        """Look once."""
        if getattr(self, "done", False) or not forward.grad:
            return
        self.done = True
        model = self.session.model
        modules = list(model.named_modules())
        tables = [(n, m.weight) for n, m in modules if isinstance(m, nn.Embedding)]
        heads = [(n, m.weight) for n, m in modules if isinstance(m, nn.Linear)]
        for name, table in tables:
            for other, head in heads:
                if table is head or table.shape != head.shape or table.numel() < 8:
                    continue
                if not (table.requires_grad and head.requires_grad):
                    continue
                if self.session.step == 0 and torch.equal(table, head):
                    shared = table.data_ptr() == head.data_ptr()
                    self.report(
                        f"The weights of {name} and {other} are equal but separate parameters: "
                        + ("both are updated in one storage." if shared else "they drift apart."),
                        f"Tie them: {other}.weight = {name}.weight (the same Parameter).",
                        where=(name, other),
                        rule="parameters_share_storage" if shared else None,
                        measured={"tensors": 2},
                        threshold={"tensors": 1},
                    )


class Repeated(Rule):
    """One layer object that stands several times in a list of layers."""

    name = "module_repeated"
    family = "ownership"
    exact = True

    def forward(self, forward: Forward) -> None:
        """Look once through every list and sequence."""
        if getattr(self, "done", False):
            return
        self.done = True
        for name, container in self.session.model.named_modules():
            if not isinstance(container, nn.ModuleList | nn.Sequential):
                continue
            items = list(container)
            seen: dict[int, int] = {}
            for item in items:
                seen[id(item)] = seen.get(id(item), 0) + 1
            times = max(
                (seen[id(m)] for m in items if any(True for _ in m.parameters())), default=1
            )
            if times > 1:
                self.report(
                    f"The same layer object occurs {times} times in {name or 'the model'}: "
                    f"these {times} layers share one set of weights.",
                    "Make a layer for each place, [Layer() for _ in range(n)]: [Layer()] * n "
                    "repeats one object. If sharing is intended, nothing is wrong.",
                    where=[name or "model"],
                    measured={"times": times},
                    threshold={"times": 1},
                )


class NotCalled(Rule):
    """Gradients arrive although the watched module was never called."""

    name = "model_bypassed"
    family = "ownership"
    severity = "note"
    exact = True

    def after_step(self, view: WatchedStep) -> None:
        """Decide at the fifth step."""
        if view.number != 5 or self.session.forwards_seen or view.closure:
            return
        distributed = type(self.session._root()).__name__ == "DistributedDataParallel"
        self.report(
            "Parameters receive gradients but the watched module was never called"
            + (": its gradients are not averaged over the ranks." if distributed else "."),
            "Call the wrapped model itself, not model.module."
            if distributed
            else "Watch the module that the loop calls (the compiled one, where there is one).",
            severity="error" if distributed else "note",
        )


RULES: tuple[type[Rule], ...] = (
    Ownership,
    ParametersReplaced,
    FrozenAtRandomInit,
    OptimizerRecreated,
    TiedBroken,
    Repeated,
    NotCalled,
)
