"""The optimizer inside another one: built on the same parameters, kept in step with its groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

__all__ = ["InnerOptimizer", "momentum_of"]

Group = dict[str, Any]


class InnerOptimizer:
    """An optimizer of class ``kind`` that follows the groups of the optimizer around it.

    Its weight decay is off: the outer optimizer has it in the gradient. Everything else that the
    class takes as a setting is read from the outer groups before every step.

    Args:
        kind: class of the optimizer.
        settings: its settings, but for the rate.

    Raises:
        TypeError: ``kind`` is no class of optimizers, or its ``step`` needs a closure.
        ValueError: ``maximize`` is set.
    """

    def __init__(self, kind: type[Optimizer], settings: dict[str, Any]) -> None:
        if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
            raise TypeError(
                f"optim_class must be a subclass of torch.optim.Optimizer, got {kind!r}"
            )
        closure = inspect.signature(kind.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise TypeError(
                f"optim_class must step from the gradients at hand, but {kind.__name__}.step needs "
                "a closure: use a first-order optimizer such as torch.optim.SGD"
            )
        if settings.get("maximize"):
            raise ValueError("maximize=True has no meaning here: negate the loss")
        self._kind, self._settings = kind, dict(settings)
        self._decay: dict[str, Any] = {}
        if "weight_decay" in inspect.signature(kind).parameters:
            self._decay = {"weight_decay": 0.0}
        self.optimizer: Optimizer | None = None

    def build(self, outer: Optimizer) -> None:
        """Make the optimizer, and fill the outer groups up with its default settings."""
        groups = [self._group(g) for g in outer.param_groups]
        make: Callable[..., Optimizer] = self._kind
        self.optimizer = make(groups, lr=0.0, **self._decay, **self._settings)
        for name, value in self.optimizer.defaults.items():
            if name not in ("lr", "weight_decay"):
                outer.defaults.setdefault(name, value)
                for group in outer.param_groups:
                    group.setdefault(name, value)

    def add(self, group: Group) -> None:
        """Take in a group that the outer optimizer got."""
        if self.optimizer is not None:
            self.optimizer.add_param_group(self._group(group))

    def _group(self, group: Group) -> Group:
        kept = {k: v for k, v in group.items() if k in self._settings}
        return {**kept, "params": group["params"], "lr": 0.0}

    def follow(self, groups: list[Group], rate_of: Callable[[Group], float]) -> None:
        """Take every group's settings and rate."""
        assert self.optimizer is not None
        for outer, inner in zip(groups, self.optimizer.param_groups, strict=True):
            for name in inner:
                if name in outer and name not in ("params", "lr", "weight_decay"):
                    inner[name] = outer[name]
            inner["lr"] = rate_of(outer)

    def step(self) -> None:
        """Update the parameters from their gradients."""
        assert self.optimizer is not None
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer."""
        assert self.optimizer is not None
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was saved."""
        assert self.optimizer is not None
        self.optimizer.load_state_dict(state)


def momentum_of(groups: list[Group]) -> float:
    """Largest momentum among the groups, below 1; of Adam's kind, the first coefficient."""
    found = [float(g.get("momentum") or (g.get("betas") or (0.0,))[0]) for g in groups]
    return min(max(found, default=0.0), 0.999)
