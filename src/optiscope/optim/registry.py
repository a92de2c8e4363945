"""Optimizers by name or by import path, and hyperparameters bound to them."""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, get_args, get_type_hints

import torch
from torch import nn
from torch.optim import Optimizer

from optiscope.errors import OptiscopeError, is_ctrl_c, message_of, shorten
from optiscope.hints import did_you_mean
from optiscope.import_path import load
from optiscope.optim import included
from optiscope.optim.baselines import first_order
from optiscope.optim.spec import OptimizerSpec

__all__ = [
    "BadSettingsError",
    "BoundOptimizer",
    "UnknownOptimizerError",
    "bind",
    "get",
    "hyperparameters_of",
    "is_shipped",
    "names",
    "refusing",
    "takes_integers",
]

_COUNT = re.compile(
    r"(^|_)(steps?|iters?|iterations?|epochs?|size|frequency|freq|interval|every|rank|k|seed|history)$"
)
NEVER_NEGATIVE = ("lr", "weight_decay")  # not every package checks them itself

_SPECS = {spec.name: spec for spec in (*first_order.SPECS, *included.SPECS)}


class UnknownOptimizerError(OptiscopeError, ValueError):
    """A name or import path that leads to no optimizer; the message is one line."""


class BadSettingsError(OptiscopeError, ValueError):
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
            ``OptimizerSpec``, a ``torch.optim.Optimizer`` class or a function that makes one.

    Raises:
        UnknownOptimizerError: nothing of that name; the message names the nearest ones.
    """
    if ":" in name:
        return _imported(name)
    if name in _SPECS:
        return _SPECS[name]
    hint = did_you_mean(name, names(), otherwise="see `optiscope list optimizers`", count=3)
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

    @property
    def create_graph(self) -> bool:
        """Whether the loop must call ``backward(create_graph=True)``."""
        return self.spec.create_graph

    @property
    def loss(self) -> bool:
        """Whether ``step`` must be given the loss."""
        return self.spec.loss

    def __call__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        horizon: int,
        steps_per_epoch: int,
        model: nn.Module | None = None,
    ) -> Optimizer:
        """Optimizer of ``groups``, told the horizon, names and the model where it asks for them.

        Where there is one group without settings, the optimizer gets its parameters as a list, as
        a user would write it.
        """
        spec = self.spec
        settings = {**spec.defaults, **self.hyperparameters}
        for old, name in spec.former.items():
            if old in settings and name not in settings:
                settings[name] = settings.pop(old)
        for argument, value in (
            (spec.horizon, horizon),
            (spec.steps_per_epoch, steps_per_epoch),
        ):
            if argument is not None:
                settings.setdefault(argument, value)
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        for name, value in settings.items():
            if isinstance(value, float) and takes_integers(spec, name):
                settings[name] = int(value)  # 8.0 of a study's file, which stands for 8
        if spec.model is not None:
            settings[spec.model] = model
            if spec.model == _first_argument(spec.make):
                return spec.make(**settings)
        given = [dict(group) for group in groups]
        if spec.named:
            known = {id(p): name for name, p in model.named_parameters()} if model else {}
            for group in given:
                group["params"] = [(known.get(id(p), str(i)), p) for i, p in _numbered(group)]
        if len(given) == 1 and set(given[0]) == {"params"}:
            return spec.make(list(given[0]["params"]), **settings)
        return spec.make(given, **settings)

    def on_probe(self) -> Optimizer:
        """The optimizer of a small model, to try settings and schedules on; all weights zero."""
        model = nn.Sequential(nn.Linear(2, 2, device="meta"), nn.Linear(2, 2, device="meta"))
        model = model.to_empty(device="cpu")
        for p in model.parameters():
            p.data.zero_()
        groups = [{"params": list(model.parameters())}]
        return self(groups, horizon=10, steps_per_epoch=5, model=model)


def _numbered(group: Mapping[str, Any]) -> list[tuple[int, torch.Tensor]]:
    return list(enumerate(group["params"]))


def _first_argument(make: Any) -> str | None:
    """Name of the first argument of a class or a factory."""
    return next(iter(inspect.signature(inspect.unwrap(make)).parameters), None)


def is_shipped(spec: OptimizerSpec) -> bool:
    """Whether it is the catalogue's own of that name."""
    return _SPECS.get(spec.name) is spec


def bind(
    optimizer: str | type[Optimizer] | Callable[..., Optimizer] | OptimizerSpec,
    hyperparameters: Mapping[str, Any],
) -> BoundOptimizer:
    """An optimizer with hyperparameters, tried on a few parameters so that errors come early.

    Args:
        optimizer: a name or import path, a class, a factory, or a spec.
        hyperparameters: what is passed to it besides its defaults.

    Raises:
        UnknownOptimizerError: no such optimizer.
        BadSettingsError: a hyperparameter it does not have, of the wrong type or out of range.
    """
    spec = _spec_of(optimizer)
    name = spec.name
    _check_names(spec, hyperparameters)
    for key, value in hyperparameters.items():
        wanted = _wanted_instead(value, _default(spec, key))
        if wanted is None and takes_integers(spec, key) and not _is_integral(value):
            wanted = "an integer"
        if key in NEVER_NEGATIVE and isinstance(value, int | float) and value < 0:
            wanted = "at least 0"
        if wanted is not None:
            raise BadSettingsError(f"{key} of {name} must be {wanted}, got {value!r}")
    bound = BoundOptimizer(spec, dict(hyperparameters))
    try:
        made = bound.on_probe()
        if not isinstance(made, Optimizer):
            raise TypeError(f"it makes {_kind(made)}, and no torch.optim.Optimizer")
    except ImportError:
        raise
    except BaseException as error:  # also one that is meant to end the process
        if is_ctrl_c(error):
            raise
        given = ", ".join(f"{k}={v!r}" for k, v in hyperparameters.items()) or "its defaults"
        why = message_of(error) or type(error).__name__
        if inspect.isfunction(spec.make) and not is_shipped(spec):
            raise BadSettingsError(
                f"expected {name} to be a function that makes a torch.optim.Optimizer, got none "
                f"from {given}: {why}"
            ) from None
        raise BadSettingsError(f"{name} refuses {given}: {why}") from None
    if not isinstance(spec.make, type) and not is_shipped(spec) and not spec.closure:
        closure = _needs_closure(type(made))  # a factory tells it by what it makes
        return replace(bound, spec=replace(spec, closure=True)) if closure else bound
    return bound


def _wanted_instead(value: Any, default: Any) -> str | None:
    """What a hyperparameter should be that is not, in words; None where the value will do."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, tuple | list) and not isinstance(value, tuple | list):
        return f"a list such as {list(default)}"
    if isinstance(default, int | float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if number else "a number"
    items = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, bool | int | float | str | None) for item in items):
        return "a number, a word, true, false or a list of them"
    return None


def _spec_of(optimizer: object) -> OptimizerSpec:
    if isinstance(optimizer, str):
        return get(optimizer)
    if isinstance(optimizer, OptimizerSpec):
        return optimizer
    path = _import_path(optimizer)
    if path is not None and (spec := _spec_at(path, optimizer)) is not None:
        return spec
    raise UnknownOptimizerError(
        "expected a name, an import path, a torch.optim.Optimizer class or an OptimizerSpec, got "
        + _kind(optimizer)
    )


def _import_path(optimizer: object) -> str | None:
    """Import path of a class, or of a function that can be imported by it."""
    module, name = getattr(optimizer, "__module__", None), getattr(optimizer, "__qualname__", "")
    if isinstance(optimizer, type) or getattr(sys.modules.get(module or ""), name, 0) is optimizer:
        return f"{module}:{name}"
    return None


def _spec_at(path: str, optimizer: object) -> OptimizerSpec | None:
    """Spec of a class or a factory at an import path; None where it is neither."""
    if isinstance(optimizer, type):
        return _spec_of_class(path, optimizer) if issubclass(optimizer, Optimizer) else None
    if inspect.isfunction(optimizer) or isinstance(optimizer, functools.partial):
        return OptimizerSpec(path, optimizer, source=path)
    return None


def _kind(found: object) -> str:
    """What was given in place of an optimizer, in words, and what to do."""
    if isinstance(found, Optimizer):
        return f"an instance of {type(found).__name__}: pass its class and its hyperparameters"
    if isinstance(found, type):
        return (
            f"the class {found.__name__}, which is not a subclass of torch.optim.Optimizer: "
            "derive it from that"
        )
    if callable(found):
        return "a function: make it the make of an OptimizerSpec"
    return shorten(found)


def _spec_of_class(path: str, optimizer: type[Optimizer]) -> OptimizerSpec:
    """Spec of a class: of ours the shipped one; a ``step`` that needs a closure is given one."""
    for spec in included.SPECS:
        if spec.make is optimizer:
            return spec
    return OptimizerSpec(path, optimizer, closure=_needs_closure(optimizer), source=path)


def _needs_closure(optimizer: type[Optimizer]) -> bool:
    """Whether ``step`` cannot be called without a closure."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def _default(spec: OptimizerSpec, hyperparameter: str) -> Any:
    """Default of a hyperparameter in the optimizer's signature, or None."""
    parameter = inspect.signature(inspect.unwrap(spec.make)).parameters.get(hyperparameter)
    return None if parameter is None else parameter.default


def hyperparameters_of(spec: OptimizerSpec) -> list[str]:
    """Names of what an optimizer takes besides its parameters and what the loop tells it."""
    told = {"self", "params", spec.horizon, spec.steps_per_epoch, *spec.former}
    names: list[str] = []
    for function in _initializers(inspect.unwrap(spec.make)):
        for name, parameter in inspect.signature(function).parameters.items():
            named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if named and name not in told and name not in names:
                names.append(name)
    first = next((n for n in names if n in ("parameters", "named_parameters", "model")), None)
    return [name for name in names if name != first]


def takes_integers(spec: OptimizerSpec, hyperparameter: str) -> bool:
    """Whether a hyperparameter of an optimizer is an integer, such as a number of steps.

    It is where the signature annotates it so (``int``, or ``int | None``). Where there is no
    annotation, it is where its default is an integer other than 0 and 1, which also stand for 0.0
    and 1.0, or where it has one of these and the name of a count (``warmup_steps``).
    """
    for function in _initializers(inspect.unwrap(spec.make)):
        parameter = inspect.signature(function).parameters.get(hyperparameter)
        if parameter is None:
            continue
        if parameter.annotation is not parameter.empty:
            return _is_integer_type(_annotation(function, hyperparameter, parameter.annotation))
        default = parameter.default
        if not isinstance(default, int) or isinstance(default, bool):
            return False
        return default not in (0, 1) or _COUNT.search(hyperparameter) is not None
    return False


def _initializers(make: Any) -> Iterator[Any]:
    """The functions that take the hyperparameters: a factory, or a class's ``__init__``.

    Those of base classes follow for as long as keyword arguments are passed on.
    """
    if not isinstance(make, type):
        yield make
        return
    for cls in make.__mro__:
        function = cls.__dict__.get("__init__")
        if function is None:
            continue
        yield function
        parameters = inspect.signature(function).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return


def _annotation(function: Any, name: str, written: Any) -> Any:
    """A parameter's annotation as a type, or as its text where that leads to none."""
    try:
        return get_type_hints(function).get(name, written)
    except Exception:  # names that exist only while types are checked
        return written


def _is_integer_type(annotation: Any) -> bool:
    if isinstance(annotation, str):
        words = re.findall(r"\w+", annotation)
        return "int" in words and set(words) <= {"int", "None", "Optional", "typing"}
    parts = get_args(annotation) or (annotation,)
    return int in parts and set(parts) <= {int, type(None)}


def _is_integral(value: Any) -> bool:
    """Whether a value may be given for an integer; None and lists are left to the optimizer."""
    return not isinstance(value, float) or value.is_integer()


def _check_names(spec: OptimizerSpec, hyperparameters: Mapping[str, Any]) -> None:
    signature = inspect.signature(inspect.unwrap(spec.make))
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return
    told = ("self", "params", _first_argument(spec.make), spec.model)
    known = [name for name in signature.parameters if name not in told]
    if "betas" in known and inspect.unwrap(spec.make) is not spec.make:
        known += ["beta1", "beta2"]
    for key in hyperparameters:
        if key not in known:
            hint = did_you_mean(key, known, otherwise=f"it has {', '.join(known)}")
            raise BadSettingsError(f"{spec.name} has no hyperparameter {key!r}: {hint}")


def _imported(path: str) -> OptimizerSpec:
    found = load(path, "an optimizer", "my_package.my_module:MyOptimizer", UnknownOptimizerError)
    if isinstance(found, OptimizerSpec):
        return found
    spec = _spec_at(path, found)
    if spec is not None:
        return spec
    raise UnknownOptimizerError(
        f"expected {path!r} to be an OptimizerSpec, a torch.optim.Optimizer class or a function "
        f"that makes one, got {_kind(found)} ({type(found).__name__})"
    )
