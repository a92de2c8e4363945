"""The optimizer inside another one: built on the same parameters, kept in step with its groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from optiscope.optim.checks import refuse_ascent

__all__ = ["InnerOptimizer", "momentum_of"]

Group = dict[str, Any]

_OUTER = ("params", "lr", "weight_decay")  # of the outer optimizer alone


class InnerOptimizer:
    """An optimizer of class ``kind`` that follows the groups of the optimizer around it.

    Its weight decay is off: the outer optimizer has it in the gradient. Everything else that the
    class takes as a setting is read from the outer groups before a step, where it has changed.

    Args:
        kind: class of the optimizer.
        settings: its settings, but for the rate.

    Raises:
        TypeError: ``kind`` is no class of optimizers, averages weights, or needs a closure.
        ValueError: ``maximize`` is set.
    """

    def __init__(self, kind: type[Optimizer], settings: dict[str, Any]) -> None:
        if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
            raise TypeError(
                f"optim_class must be a subclass of torch.optim.Optimizer, got {kind!r}"
            )
        if hasattr(kind, "train") and hasattr(kind, "eval"):
            raise TypeError(
                f"optim_class must leave weights where it steps to, but {kind.__name__} averages "
                "them between train() and eval(): use the optimizer that it averages"
            )
        closure = inspect.signature(kind.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise TypeError(
                f"optim_class must step from the present gradients, but {kind.__name__}.step needs "
                "a closure: use a first-order optimizer such as torch.optim.SGD"
            )
        refuse_ascent(settings)
        self._kind, self._settings = kind, dict(settings)
        self._decay: dict[str, Any] = {}
        self._taken: list[Group] = []  # settings of the outer groups as they were last taken
        if "weight_decay" in inspect.signature(kind).parameters:
            self._decay = {"weight_decay": 0.0}
        self.optimizer: Optimizer | None = None

    @property
    def known(self) -> frozenset[str]:
        """Settings that groups may hold: those of the class, and the outer optimizer's own."""
        without = {"maximize", "differentiable", "capturable"}
        defaults = {} if self.optimizer is None else self.optimizer.defaults
        return frozenset({*_OUTER, *inspect.signature(self._kind).parameters, *defaults} - without)

    def build(self, outer: Optimizer) -> None:
        """Make the optimizer, and fill the outer groups up with its default settings."""
        groups = [self._group(g) for g in outer.param_groups]
        make: Callable[..., Optimizer] = self._kind
        self.optimizer = make(groups, lr=1.0, **self._decay, **self._settings)
        self._taken = [self._seen(group) for group in self.optimizer.param_groups]
        for name, value in self.optimizer.defaults.items():
            if name not in ("lr", "weight_decay"):
                outer.defaults.setdefault(name, value)
                for group in outer.param_groups:
                    group.setdefault(name, value)

    def add(self, group: Group) -> None:
        """Take in a group that the outer optimizer got."""
        if self.optimizer is not None:
            self.optimizer.add_param_group(self._group(group))
            self._taken.append(self._seen(self.optimizer.param_groups[-1]))

    def _seen(self, group: Group) -> Group:
        """A group's settings; its rate, which comes from outside before every step, is none yet."""
        group["lr"] = 0.0
        return {k: v for k, v in group.items() if k not in _OUTER}

    def _group(self, group: Group) -> Group:
        kept = {k: v for k, v in group.items() if k in self._settings}
        return {**kept, "params": group["params"], "lr": 1.0}

    def follow(self, groups: list[Group], rate_of: Callable[[Group], float]) -> None:
        """Take every group's settings and rate."""
        assert self.optimizer is not None
        self.take_settings(groups)
        for outer, inner in zip(groups, self.optimizer.param_groups, strict=True):
            inner["lr"] = rate_of(outer)

    def take_settings(self, groups: list[Group]) -> None:
        """Take what has changed outside; what the optimizer counts in its groups stays its own."""
        assert self.optimizer is not None
        inside = self.optimizer.param_groups
        for outer, inner, taken in zip(groups, inside, self._taken, strict=True):
            for name, value in taken.items():
                if name in outer and outer[name] is not value and outer[name] != value:
                    inner[name] = taken[name] = outer[name]

    def step(self) -> None:
        """Update the parameters from their gradients."""
        assert self.optimizer is not None
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer."""
        assert self.optimizer is not None
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any], groups: list[Group]) -> None:
        """Continue where ``state_dict`` was saved, inside these groups of the outer optimizer."""
        assert self.optimizer is not None
        self.optimizer.load_state_dict(state)
        self._taken = [
            {k: outer[k] for k in inner if k in outer and k not in _OUTER}
            for outer, inner in zip(groups, self.optimizer.param_groups, strict=True)
        ]


def momentum_of(groups: list[Group]) -> float:
    """Largest momentum among the groups, below 1; of Adam's kind, the first coefficient."""
    found = [float(g.get("momentum") or (g.get("betas") or (0.0,))[0]) for g in groups]
    return min(max(found, default=0.0), 0.999)
