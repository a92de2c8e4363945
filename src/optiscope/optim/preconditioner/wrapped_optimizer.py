"""An optimizer built around another: groups, rates as factors, saving and copying."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from torch.optim import Optimizer

from optiscope.objective import FlatParameters
from optiscope.optim.checks import check_number, refuse_ascent, refuse_sharded
from optiscope.optim.foreign_keys import refuse_foreign_keys
from optiscope.optim.preconditioner.inner import InnerOptimizer

__all__ = ["WrappedOptimizer"]

_WHOLE = "of_all_parameters"


class WrappedOptimizer(Optimizer):
    """Optimizer around an inner one, whose rate it constructs or takes as given.

    ``group["lr"]`` is a factor on the constructed rate, or the rate itself where
    ``constructs_rate`` is False. In the groups given by a user ``lr`` is the rate of the first
    epoch (the rate, where it is not constructed) and ``lr_scale`` the factor.

    Args:
        params: parameters or groups.
        lr: rate of the first epoch, or the rate.
        weight_decay: L2 coefficient.
        optim_class: inner optimizer.
        settings: its settings.
    """

    constructs_rate = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None,
        weight_decay: float,
        optim_class: type[Optimizer],
        settings: dict[str, Any],
    ) -> None:
        weight_decay = check_number("weight_decay", weight_decay)
        if lr is not None:
            lr = check_number("lr", lr, positive=True)
        elif not self.constructs_rate:
            raise ValueError(f"{type(self).__name__} uses a fixed rate: pass lr")
        self._inner = InnerOptimizer(optim_class, settings)
        own = {"lr": 1.0, "first_lr": lr, "weight_decay": weight_decay}
        super().__init__(params, {**own, **settings})
        self._inner.build(self)

    @abstractmethod
    def _groups_changed(self) -> None:
        """Called after a group has been added to a complete optimizer."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with their settings."""
        group = dict(param_group)
        refuse_ascent(group)
        rate = group.pop("lr", None)
        factor = check_number("lr_scale", group.pop("lr_scale", 1.0))
        if "weight_decay" in group:
            group["weight_decay"] = check_number("weight_decay", group["weight_decay"])
        if rate is not None:
            group["first_lr"] = check_number("lr", rate, positive=True)
        first = group.get("first_lr", self.defaults["first_lr"])
        group["lr"] = factor if self.constructs_rate else factor * first
        super().add_param_group(group)
        try:
            self._refuse_foreign(self.param_groups[-1])
            refuse_sharded(type(self).__name__, self.param_groups[-1]["params"])
            self._see_parameters()
            self._inner.add(self.param_groups[-1])
        except Exception:
            self.param_groups.pop()
            if self.param_groups:
                self._see_parameters()
            raise
        if self._inner.optimizer is not None:
            self._groups_changed()

    def _refuse_foreign(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError where a group asks for what neither this nor the inner one does."""
        refuse_ascent(group)
        refuse_foreign_keys(type(self).__name__, group, self._inner.known)

    def _see_parameters(self) -> None:
        self._flat = FlatParameters.of(p for g in self.param_groups for p in g["params"])

    def state_dict(self) -> dict[str, Any]:
        """State that resumes bit for bit; loads with ``weights_only=True``.

        What belongs to all parameters together stands at the top, and once more under the first
        parameter, where torch's distributed checkpoint functions find it.
        """
        self._inner.take_settings(self.param_groups)
        own = {"inner": self._inner.state_dict(), **self._whole_state()}
        state = super().state_dict()
        places = [place for group in state["param_groups"] for place in group["params"]]
        by_place: dict[Any, dict[str, Any]] = {place: {} for place in places}
        for place in places[:1]:
            by_place[place] = {_WHOLE: own}
        return {**state, **own, "state": by_place}

    @abstractmethod
    def _whole_state(self) -> dict[str, Any]:
        """What is known of all parameters together."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was saved."""
        state_dict = self._complete(state_dict)
        for group in state_dict["param_groups"]:
            self._refuse_foreign(group)
        super().load_state_dict({**state_dict, "state": {}})
        self._inner.load_state_dict(state_dict["inner"], self.param_groups)

    def _complete(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """A saved state with all that it must hold, at the top.

        Raises:
            ValueError: something is missing.
        """
        for held in state_dict.get("state", {}).values():
            state_dict = {**held.get(_WHOLE, {}), **state_dict}
        missing = set(self.state_dict()) - set(state_dict)
        if missing:
            raise ValueError(
                f"expected a state of {type(self).__name__}, got one without {sorted(missing)}: "
                "load the state of the same optimizer"
            )
        return state_dict

    def __getstate__(self) -> dict[str, Any]:
        hooks = {k for k in self.__dict__ if k.startswith("_optimizer_") or "profile" in k}
        bound = {"_flat", "step"}  # schedulers put a step of their own on the instance
        own = {k: v for k, v in self.__dict__.items() if k not in hooks | bound}
        return {**own, **super().__getstate__()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_inner" in self.__dict__:
            self._see_parameters()
