"""What happens in a training step, as values: forwards, losses and the step of an optimizer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Forward", "LossCall", "Observer", "ProbeError", "WatchedStep", "at_looks"]

Handler = TypeVar("Handler", bound=Callable[..., Any])


class ProbeError(Exception):
    """The model cannot be called on the inputs of a probe; nothing is known then."""


def at_looks(handler: Handler) -> Handler:
    """Mark an observer's method as one that is called at looks only, not at every step."""
    setattr(handler, "at_looks", True)  # noqa: B010
    return handler


@dataclass(eq=False)
class Forward:
    """One call of the watched model.

    ``grad`` says whether the output carries a graph, ``training`` is the mode of the root module,
    ``rows`` the fingerprints [B] of the samples, ``output`` the main output without its graph
    ([B, ...]), ``mutated`` whether the call changed its first input in place.
    """

    step: int
    number: int
    training: bool
    look: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Tensor, ...]
    rows: Tensor | None = None
    grad: bool = False
    output: Tensor | None = None
    operation: Any = None
    nodes: list[Any] = field(default_factory=list)
    mutated: bool = False
    in_step: bool = False
    backwards: int = 0
    autocast: torch.dtype | None = None
    target: Tensor | None = None
    prediction: Tensor | None = None
    loss: Tensor | None = None
    form: Any = None
    labels: Tensor | None = None
    counts: Counter[int] | None = None

    @property
    def input(self) -> Tensor | None:
        """The first tensor that the model was called with."""
        return self.inputs[0] if self.inputs else None

    @property
    def size(self) -> int:
        """Samples in the batch (length of the first dimension)."""
        first = self.input
        return first.shape[0] if first is not None and first.ndim else 1


@dataclass(eq=False)
class LossCall:
    """One call of the criterion: its arguments and value, without their graphs.

    ``scale`` is the derivative of what was differentiated by this loss, known after the backward
    pass: 1 for ``loss.backward()``, 1/k for a loss divided by k, negative for ascent.
    ``prediction`` and ``target`` are the first two tensors of the call, ``others`` the rest,
    ``options`` what is no tensor, by name. Where both of the first two carry a graph, ``arrived``
    holds the gradients that reached them in the backward pass, from whatever uses them.
    """

    step: int
    criterion: Any
    prediction: Tensor | None
    target: Tensor | None
    value: Tensor | None
    grad: bool
    scale: float | None = None
    forward: Forward | None = None
    prediction_grad: bool = False
    target_grad: bool = False
    others: tuple[Tensor, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    arrived: dict[int, Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class WatchedStep:
    """One step of one optimizer, with all that happened since its step before.

    ``tick`` says whether it is a step for cheap checks, ``look`` whether one to look at closely.
    ``before`` holds copies of the parameters at some of the looks, else nothing.
    ``accumulations`` counts the backward passes that reached the sentinel parameter since the last
    step, ``uncleared`` those that added to a gradient that nobody had cleared since that step.
    ``left`` holds the sentinel's values as the step before left them, where it is small and early.
    """

    step: int
    number: int
    index: int
    optimizer: Optimizer
    model: nn.Module
    names: Mapping[int, str]
    tick: bool
    look: bool
    closure: bool
    forwards: list[Forward]
    losses: list[LossCall]
    accumulations: int
    uncleared: int
    rates: tuple[float, ...]
    rates_after: tuple[float, ...] = ()
    before: dict[int, Tensor] = field(default_factory=dict)
    sentinel: Tensor | None = None
    left: Tensor | None = None
    fresh_norm: float | None = None

    @cached_property
    def parameters(self) -> list[Tensor]:
        """Parameters of the optimizer, in the order of its groups."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def name(self, parameter: Tensor) -> str:
        """The parameter's name in the model, or its shape where the model does not hold it."""
        return self.names.get(id(parameter), f"tensor {list(parameter.shape)} outside of the model")

    @cached_property
    def with_gradient(self) -> list[Tensor]:
        """Parameters that hold a dense gradient at this step."""
        return [p for p in self.parameters if p.grad is not None and not p.grad.is_sparse]

    @cached_property
    def gradient_norms(self) -> dict[str, float]:
        """2-norm of each parameter's gradient just before the step."""
        return _norms(self.with_gradient, [p.grad for p in self.with_gradient], self)

    @cached_property
    def gradient_norm(self) -> float:
        """2-norm of all gradients together."""
        return math.sqrt(sum(v * v for v in self.gradient_norms.values()))

    @cached_property
    def weight_norms(self) -> dict[str, float]:
        """2-norm of each parameter: before the step where ``before`` knows it, else now."""
        if not self.before:
            return _norms(self.parameters, self.parameters, self)
        kept = [p for p in self.parameters if id(p) in self.before]
        return _norms(kept, [self.before[id(p)] for p in kept], self)

    @cached_property
    def updates(self) -> dict[int, Tensor]:
        """Change of each parameter by this step, by id; empty where ``before`` is."""
        kept = [p for p in self.parameters if id(p) in self.before]
        if not kept:
            return {}
        moved = torch._foreach_sub([p.detach() for p in kept], [self.before[id(p)] for p in kept])
        return {id(p): change for p, change in zip(kept, moved, strict=True)}

    @cached_property
    def update_norms(self) -> dict[str, float]:
        """2-norm of each parameter's change by this step."""
        kept = [p for p in self.parameters if id(p) in self.before]
        return _norms(kept, [self.updates[id(p)] for p in kept], self)


def _norms(parameters: list[Tensor], values: list[Any], view: WatchedStep) -> dict[str, float]:
    """2-norms by name, with one transfer from the device."""
    if not values:
        return {}
    norms = torch._foreach_norm([v.detach() for v in values])
    device = norms[0].device
    flat = torch.stack([norm.to(device, torch.float64) for norm in norms])
    return {view.name(p): n for p, n in zip(parameters, flat.tolist(), strict=True)}


class Observer:
    """Whoever is told of a session's events; methods that are not overridden are never called.

    They are called in the first steps, at ticks and when something unusual happened; methods
    marked with :func:`at_looks` at looks only. Evaluations and changes of the rate are always told.
    """

    def start(self, session: Any) -> None:
        """The session is attached."""

    compares_weights: bool = False
    """Whether it reads ``before`` at looks."""

    reads_forwards: bool = False
    """Whether it reads ``rows``, or ``nodes`` and ``operation`` at looks."""

    def wants_before(self, number: int) -> bool:
        """Whether a look at step ``number`` needs all weights before and after it."""
        return False

    wants_fingerprints: bool = False

    def fingerprints(self, rows: Tensor, step: int) -> Any:
        """Fingerprints [B] of a training batch between ticks, while ``wants_fingerprints``."""

    def rates_changed(self, index: int, number: int, rates: tuple[float, ...]) -> Any:
        """The rates of optimizer ``index`` are others at its step ``number`` than before."""

    def before_forward(self, root: nn.Module, size: int) -> Any:
        """The model (as the loop calls it) is about to be called for training on ``size`` samples.

        Told in the same steps as :meth:`forward`, of calls that build a graph.
        """

    def forward(self, forward: Forward) -> Any:
        """The model was called."""

    def loss(self, call: LossCall) -> Any:
        """The criterion was called."""

    def output_gradient(self, forward: Forward, gradient: Tensor) -> Any:
        """The backward pass reached the output of ``forward``."""

    def before_step(self, view: WatchedStep) -> Any:
        """An optimizer is about to step (closures have not run yet)."""

    def after_step(self, view: WatchedStep) -> Any:
        """An optimizer has stepped."""

    def finish(self) -> Any:
        """The session is about to be closed."""
