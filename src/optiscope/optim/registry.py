"""Optimizers by name or by import path, and hyperparameters bound to them."""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from optiscope.optim import first_order
from optiscope.optim.spec import OptimizerSpec

__all__ = [
    "BadSettingsError",
    "BoundOptimizer",
    "UnknownOptimizerError",
    "bind",
    "get",
    "names",
    "refusing",
]

_SPECS = {spec.name: spec for spec in first_order.SPECS}


class UnknownOptimizerError(ValueError):
    """A name or import path that leads to no optimizer; the message is one line."""


class BadSettingsError(ValueError):
    """A setting that cannot be; the message is one line."""


@contextmanager
def refusing() -> Iterator[None]:
    """Turn a ValueError about what the user asked for into a BadSettingsError."""
    try:
        yield
    except ValueError as error:
        raise BadSettingsError(str(error)) from None


def names() -> list[str]:
    """Names of the shipped optimizers, in the catalogue's order."""
    return list(_SPECS)


def get(name: str) -> OptimizerSpec:
    """The optimizer of that name, or at that import path.

    Args:
        name: one of :func:`names`, or ``my_package.my_module:MyOptimizer``, which is an
            ``OptimizerSpec`` or a ``torch.optim.Optimizer`` class.

    Raises:
        UnknownOptimizerError: nothing of that name; the message names the nearest ones.
    """
    if ":" in name:
        return _imported(name)
    if name in _SPECS:
        return _SPECS[name]
    near = difflib.get_close_matches(name.lower(), names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `optiscope list optimizers`"
    raise UnknownOptimizerError(
        f"expected an optimizer's name or my_package.my_module:MyOptimizer, got {name!r}: {hint}"
    )


@dataclass(frozen=True)
class BoundOptimizer:
    """An optimizer with its hyperparameters, ready to be given parameters by the loop."""

    spec: OptimizerSpec
    hyperparameters: Mapping[str, Any]

    @property
    def closure(self) -> bool:
        """Whether ``step`` must be given a closure."""
        return self.spec.closure

    def __call__(
        self, groups: Sequence[dict[str, Any]], *, horizon: int, steps_per_epoch: int
    ) -> Optimizer:
        """Optimizer of ``groups``, told the horizon where it asks for it."""
        settings = {**self.spec.defaults, **self.hyperparameters}
        for argument, value in (
            (self.spec.horizon, horizon),
            (self.spec.steps_per_epoch, steps_per_epoch),
        ):
            if argument is not None:
                settings.setdefault(argument, value)
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        return self.spec.make(list(groups), **settings)


def bind(
    optimizer: str | type[Optimizer] | OptimizerSpec, hyperparameters: Mapping[str, Any]
) -> BoundOptimizer:
    """An optimizer with hyperparameters, tried on one parameter so that errors come early.

    Args:
        optimizer: a name or import path, a class, or a spec.
        hyperparameters: what is passed to it besides its defaults.

    Raises:
        UnknownOptimizerError: no such optimizer.
        BadSettingsError: a hyperparameter it does not have, of the wrong type or out of range.
    """
    spec = _spec_of(optimizer)
    name = spec.name
    _check_names(spec, hyperparameters)
    for key, value in hyperparameters.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BadSettingsError(f"{key} of {name} must be a finite number, got {value}")
        if isinstance(value, str) and isinstance(_default(spec, key), int | float):
            raise BadSettingsError(f"{key} of {name} must be a number, got {value!r}")
    bound = BoundOptimizer(spec, dict(hyperparameters))
    probe = [{"params": [torch.zeros(2, 2, requires_grad=True)]}]
    try:
        bound(probe, horizon=10, steps_per_epoch=5)
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        given = ", ".join(f"{k}={v!r}" for k, v in hyperparameters.items()) or "its defaults"
        raise BadSettingsError(f"{name} refuses {given}: {error}") from None
    return bound


def _spec_of(optimizer: str | type[Optimizer] | OptimizerSpec) -> OptimizerSpec:
    if isinstance(optimizer, str):
        return get(optimizer)
    if isinstance(optimizer, OptimizerSpec):
        return optimizer
    path = f"{optimizer.__module__}:{optimizer.__qualname__}"
    return OptimizerSpec(path, optimizer, source=path)


def _default(spec: OptimizerSpec, hyperparameter: str) -> Any:
    """Default of a hyperparameter in the optimizer's signature, or None."""
    parameter = inspect.signature(inspect.unwrap(spec.make)).parameters.get(hyperparameter)
    return None if parameter is None else parameter.default


def _check_names(spec: OptimizerSpec, hyperparameters: Mapping[str, Any]) -> None:
    signature = inspect.signature(inspect.unwrap(spec.make))
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return
    known = [name for name in signature.parameters if name not in ("self", "params")]
    if "betas" in known and inspect.unwrap(spec.make) is not spec.make:
        known += ["beta1", "beta2"]
    for key in hyperparameters:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise BadSettingsError(f"{spec.name} has no hyperparameter {key!r}: {hint}")


def _imported(path: str) -> OptimizerSpec:
    module_name, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except ValueError:
        raise UnknownOptimizerError(
            f"expected my_package.my_module:MyOptimizer, got {path!r}: "
            "name a module before the colon"
        ) from None
    except ModuleNotFoundError as error:
        raise UnknownOptimizerError(
            f"expected an importable module in {path!r}, got no module named {error.name!r}: "
            "install it or run from its folder"
        ) from None
    except AttributeError:
        raise UnknownOptimizerError(
            f"expected an optimizer {attribute!r} in module {module_name!r}, got none of that "
            "name: correct the word after the colon"
        ) from None
    if isinstance(found, OptimizerSpec):
        return found
    if isinstance(found, type) and issubclass(found, Optimizer):
        return OptimizerSpec(path, found, source=path)
    raise UnknownOptimizerError(
        f"expected {path!r} to be an OptimizerSpec or a torch.optim.Optimizer class, "
        f"got {type(found).__name__}"
    )
