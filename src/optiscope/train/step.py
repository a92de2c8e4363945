"""One training step: loss, penalty, gradient, clipping, and the optimizer's move.

Clipping is declared as ``{norm = 1.0}`` or ``{value = 0.5}``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optiscope.data.samples import Batch
from optiscope.objective.statistics import has_statistics, statistics_of_these_weights
from optiscope.train.clock import PhaseClock
from optiscope.train.gradient import BatchGradient

__all__ = ["TrainingStep", "check_clip", "clip_gradients", "evaluation_mode", "has_modes"]


class TrainingStep:
    """Takes steps of one optimizer on one model.

    Args:
        optimizer: what trains the model.
        gradient: evaluates its loss and gradient.
        parameters: of the model that are trained.
        closure_driven: whether the optimizer evaluates the gradient itself, as often as it likes.
        pass_loss: whether ``step`` takes the loss (``step(loss=loss)``).
        clip: declared clipping of each gradient.
        needs: copies to make of each step, words of ``optiscope.monitor.instrument.NEEDS``.
        clock: where the seconds go; those of the first step of a compiled model, which are the
            compiler's, go to ``instruments``.

    Attributes:
        gradient_evaluations: so far.
        copies: of the latest step, by word.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        gradient: BatchGradient,
        parameters: Sequence[Tensor],
        *,
        closure_driven: bool,
        clip: Mapping[str, float] | None,
        needs: frozenset[str],
        clock: PhaseClock,
        pass_loss: bool = False,
    ) -> None:
        self.optimizer, self.gradient, self.parameters = optimizer, gradient, parameters
        self.clip, self.needs, self.clock = clip, needs, clock
        self.compiling = gradient.compiles
        self.closure_driven = closure_driven
        self.create_graph, self.pass_loss = gradient.create_graph, pass_loss
        self.gradient_evaluations = 0
        self.copies: dict[str, Sequence[Tensor | None]] = {}

    def take(self, batch: Batch) -> Tensor:
        """Take a step; return the batch's loss [] at the parameters before it."""
        first_loss: list[Tensor] = []  # an optimizer may evaluate several times in a step

        def closure() -> Tensor:
            if self.closure_driven:
                self.clock.mark("optimizer")
            self.optimizer.zero_grad()
            loss, objective = self.gradient.evaluate(batch)
            self.gradient.unscale(self.optimizer)
            if self.clip is not None:
                clip_gradients(self.parameters, self.clip)
            self.gradient_evaluations += 1
            self.clock.mark("instruments" if self.compiling else "forward_backward")
            self.compiling = False
            if not first_loss:
                first_loss.append(loss.detach())
                if "gradients" in self.needs:
                    gradients = [
                        None if p.grad is None else p.grad.clone() for p in self.parameters
                    ]
                    self.copies["gradients"] = gradients
                    self.clock.mark("instruments")
            return objective

        if "start" in self.needs:
            self.copies["start"] = [p.detach().clone() for p in self.parameters]
            self.clock.mark("instruments")
        if self.closure_driven:
            step: Any = self.optimizer.step  # torch types a closure as one that returns a float
            step(closure)
        else:
            objective = closure()
            self._step_once(objective)
        return first_loss[0]

    def _step_once(self, objective: Tensor) -> None:
        """The optimizer's own step, after a gradient."""
        words = {"loss": objective.detach()} if self.pass_loss else {}
        try:
            self.gradient.step(self.optimizer, **words)
        except RuntimeError as error:
            if "does not require grad" not in str(error) or self.create_graph:
                raise
            raise RuntimeError(
                f"{error} It seems to differentiate the gradient: give it as an OptimizerSpec "
                "with create_graph=True"
            ) from error
        except TypeError as error:
            if "'loss'" not in str(error) or self.pass_loss:
                raise
            raise TypeError(
                f"{error}: give the optimizer as an OptimizerSpec with loss=True"
            ) from error
        if self.create_graph:  # gradients hold the graph, and the graph the gradients
            for p in self.parameters:
                p.grad = None


def check_clip(declared: Mapping[str, float]) -> None:
    """Raise ValueError with one line where a declared clipping cannot be."""
    limit = next(iter(declared.values()), 0.0)
    one = len(declared) == 1 and set(declared) <= {"norm", "value"}
    if not (one and isinstance(limit, int | float) and 0 < limit < math.inf):
        raise ValueError(f"clip takes one positive 'norm' or 'value', got {dict(declared)}")


def clip_gradients(parameters: Sequence[Tensor], declared: Mapping[str, float]) -> None:
    """Scale the whole gradient to the declared norm at most, or cut each entry at the value."""
    if "norm" in declared:
        nn.utils.clip_grad_norm_(parameters, declared["norm"])
    else:
        nn.utils.clip_grad_value_(parameters, declared["value"])


class HasModes(Protocol):
    """What trains and evaluates at different weights."""

    def eval(self) -> object:
        """Go to the weights that are evaluated."""

    def train(self) -> object:
        """Go back to those that are trained."""


def has_modes(optimizer: Optimizer) -> TypeGuard[HasModes]:
    """Whether it trains and evaluates at different weights (schedule-free methods)."""
    return all(callable(getattr(optimizer, name, None)) for name in ("eval", "train"))


@contextmanager
def evaluation_mode(
    optimizer: Optimizer,
    model: nn.Module,
    batches: Callable[[], Iterable[Batch]],
    forward: Callable[[nn.Module, Batch], object],
) -> Iterator[None]:
    """Call the optimizer's ``eval()`` and ``train()`` where it has them.

    Where that changes the weights of a model with batch norm, its statistics are those of the
    weights evaluated, from training ``batches``, until the block ends.
    """
    if not has_modes(optimizer):
        yield
        return
    watched = list(model.parameters()) if has_statistics(model) else []
    before = [p.detach().clone() for p in watched]
    optimizer.eval()
    try:
        if all(torch.equal(p, q) for p, q in zip(watched, before, strict=True)):
            yield
        else:
            with statistics_of_these_weights(model, batches(), forward):
                yield
    finally:
        optimizer.train()
