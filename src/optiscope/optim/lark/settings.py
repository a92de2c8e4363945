"""Lark's settings: one frozen value per group of parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from optiscope.errors import shorten
from optiscope.optim.checks import refuse_flat
from optiscope.optim.foreign_keys import refuse_foreign_keys
from optiscope.optim.lark.reading import READINGS

__all__ = ["LarkSettings", "check_parameter", "read_settings"]


@dataclass(frozen=True)
class LarkSettings:
    """Settings of a group; :class:`~optiscope.optim.lark.Lark` documents them.

    Raises:
        ValueError: a setting is out of its range; the message is one line.
    """

    lr: float | Tensor
    total_steps: int | None
    weight_decay: float
    rank: int
    full_up_to: int
    power: float
    momentum: float
    memory: float
    gather_every: int
    renew_every: int
    growth: float
    read_as: str

    def __post_init__(self) -> None:
        lr = self.lr
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(
                f"lr must be one number, got a tensor of shape {list(lr.shape)}: "
                "make one group per factor"
            )
        factor = lr.item() if isinstance(lr, Tensor) else lr
        if not (_is_number(factor) and factor >= 0):
            raise ValueError(
                f"lr must be a finite number >= 0, got {lr!r}: 1.0 is the built-in length"
            )
        for name in ("weight_decay", "growth", "power"):
            value = getattr(self, name)
            if not (_is_number(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
        if not (_is_number(self.momentum) and 0 <= self.momentum < 1):
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum!r}")
        if not (_is_number(self.memory) and self.memory >= 1):
            raise ValueError(f"memory must be a number of steps >= 1, got {self.memory!r}")
        for name, lowest in (
            ("rank", 0),
            ("full_up_to", 0),
            ("gather_every", 1),
            ("renew_every", 1),
        ):
            value = getattr(self, name)
            if not _is_integer(value) or value < lowest:
                raise ValueError(f"{name} must be an integer >= {lowest}, got {value!r}")
        total = self.total_steps
        if total is not None and (not _is_integer(total) or total < 1):
            raise ValueError(
                "total_steps must be a positive number of steps or None, "
                f"got {total!r}: pass epochs * len(loader)"
            )

        if self.read_as not in READINGS:
            raise ValueError(
                f"read_as must be one of {', '.join(READINGS)}, got {shorten(self.read_as)}"
            )

    @property
    def forget(self) -> float:
        """Weight in the factors of a gradient that is gathered."""
        return 1 - (1 - 1 / self.memory) ** self.gather_every

    def agrees_with(self, group: Mapping[str, Any]) -> bool:
        """Whether a group holds just these settings, under both names where there are two.

        Raises:
            ValueError: it has a key of torch's optimizers that Lark does not honor.
        """
        names = (*SETTING_NAMES, "horizon")
        if not all(_same(group.get(name), self.as_group[name]) for name in names):
            return False
        refuse_foreign_keys("Lark", group, SETTING_NAMES, _ADVICE)
        return True

    @cached_property
    def as_group(self) -> dict[str, Any]:
        """The settings as a group holds them, ``total_steps`` under its former name too."""
        return {
            **{name: getattr(self, name) for name in SETTING_NAMES},
            "horizon": self.total_steps,
        }


SETTING_NAMES = tuple(field.name for field in fields(LarkSettings))
_LATER = {"read_as": "auto"}  # what states do not hold that were saved before there was the setting
_ADVICE = {
    "nesterov": ((None, True), "the lookahead is always taken; leave it out"),
    "dampening": ((None,), "momentum is a running average; leave it out"),
    "decoupled_weight_decay": ((None, True), "decay is always decoupled; leave it out"),
    "betas": ((None,), "set momentum (0.95) and memory (100 steps), or leave it out"),
    "eps": ((None,), "no step depends on the gradient's scale; leave it out"),
}


def read_settings(group: Mapping[str, Any], before: LarkSettings | None = None) -> LarkSettings:
    """Settings of a group, with plain Python numbers.

    Numbers of NumPy would not load again with ``weights_only=True``.

    Args:
        group: settings by name; ``horizon``, the former name, may stand for ``total_steps``.
        before: what the group was last read as, by which a change of either name is seen.

    Raises:
        ValueError: a setting is out of its range, or one of torch's that Lark does not honor;
            the message is one line.
    """
    refuse_foreign_keys("Lark", group, SETTING_NAMES, _ADVICE)
    values = {name: _plain(group.get(name, _LATER.get(name))) for name in SETTING_NAMES}
    total = values["total_steps"]
    if "horizon" in group and total == (None if before is None else before.total_steps):
        values["total_steps"] = _plain(group["horizon"])
    return LarkSettings(**values)


def missing_settings(group: Mapping[str, Any]) -> list[str]:
    """Names of settings that a saved group does not hold, in either spelling."""
    missing = [name for name in SETTING_NAMES if name not in group and name not in _LATER]
    return [name for name in missing if name != "total_steps" or "horizon" not in group]


def check_parameter(parameter: Tensor) -> None:
    """Raise TypeError, one line, where a parameter is flat with others or not real."""
    refuse_flat("Lark", parameter)
    if not torch.is_floating_point(parameter):
        raise TypeError(
            f"expected real floating-point parameters, got {parameter.dtype}: "
            "pass view_as_real of a complex one, and leave out what has no gradient"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _same(held: object, value: object) -> bool:
    if isinstance(held, Tensor) or isinstance(value, Tensor):
        return held is value
    return type(held) is type(value) and held == value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
