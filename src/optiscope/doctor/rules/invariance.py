"""What must not change the output, and what must: the place in a batch, and each argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, WatchedStep
from optiscope.monitor.outputs import main_output
from optiscope.monitor.probe import output_at, rows_of
from optiscope.objective.own_loss import named_loss

__all__ = ["RULES"]

SAMPLES = 8


def _with(forward: Forward, change: Callable[[int, Tensor], Tensor]) -> Forward:
    """``forward`` with its batched arguments changed, each told its number."""
    size, number = forward.size, -1

    def changed(value: Any) -> Any:
        nonlocal number
        if not isinstance(value, Tensor):
            return value
        number += 1
        return change(number, value) if value.ndim and value.shape[0] == size else value

    args = tuple(changed(a) for a in forward.args)
    kwargs = {k: changed(v) for k, v in forward.kwargs.items()}
    inputs = tuple(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
    return replace(forward, args=args, kwargs=kwargs, inputs=inputs)


def _last_as_first(values: Tensor) -> Tensor:
    other = values.clone()
    other[-1] = other[0]
    return other


class Place(Rule):
    """Outputs of a sample that depend on where in the batch it stands."""

    name = "place_in_batch_matters"
    family = "inputs"
    severity = "error"
    exact = True
    LIMIT = 1e-3

    def __init__(self) -> None:
        super().__init__()
        self.done = False
        self.rows: Tensor | None = None
        self.varied = False

    def after_step(self, view: WatchedStep) -> None:
        """Roll a batch by one place: the outputs must roll along."""
        if self.done or view.index:
            return
        forwards = [f for f in view.forwards if f.grad and f.args and f.rows is not None]
        if not forwards:
            return
        forward = forwards[-1]
        assert forward.rows is not None
        self.varied |= self.rows is not None and not torch.equal(self.rows, forward.rows)
        self.rows = forward.rows
        if view.number < 5 or not view.look:
            return
        self.done = True
        out, target = forward.output, forward.target
        if not self.varied or out is None or out.ndim < 2 or out.shape[0] != forward.size:
            return
        if target is not None and (target.ndim == 0 or target.shape[0] != forward.size):
            return
        small = rows_of(forward, SAMPLES)
        if small is None or small.size < 3:
            return
        base = self._output(small)
        rolled = self._output(_with(small, lambda _, v: v.roll(1, 0)))
        replaced = self._output(_with(small, lambda _, v: _last_as_first(v)))
        again = self._output(small, seed=1)
        if base is None or rolled is None or replaced is None or again is None:
            return
        scale = float((base - base.mean(0)).abs().max())
        if not base.shape == rolled.shape == replaced.shape or scale == 0:
            return
        if not torch.equal(base, again):
            return  # it draws random numbers, and those belong to places
        if float((replaced - base)[:-1].abs().max()) > self.LIMIT * scale:
            return  # samples mix, or the first axis is no batch
        change = float((rolled - base.roll(1, 0)).abs().max()) / scale
        if change > self.LIMIT:
            self.report(
                "The output of a sample depends on its place in the batch: moved by one place, it "
                f"changes by {change:.1e} of the spread of outputs.",
                "Something is added or indexed along the batch axis (positions, for one): "
                "give it the axis it belongs to.",
                measured={"change": change},
                threshold={"change": self.LIMIT},
            )

    def _output(self, forward: Forward, seed: int = 0) -> Tensor | None:
        out = main_output(output_at(self.session, forward, evaluation=True, seed=seed))
        return None if out is None or out.shape[0] != forward.size else out.detach().double()


class Ignored(Rule):
    """An argument of the model whose values have no influence on its output."""

    name = "argument_ignored"
    family = "inputs"
    AT = (20, 40)

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0
        self.suspects: set[int] = set()

    def after_step(self, view: WatchedStep) -> None:
        """Roll one argument at a time, at two looks: gates may begin at zero."""
        if self.tries >= 2 or view.index or not view.look or view.number < self.AT[self.tries]:
            return
        forwards = [f for f in view.forwards if f.grad and f.args and len(f.inputs) > 1]
        small = rows_of(forwards[-1], SAMPLES) if forwards else None
        if small is None or small.size < 3:
            self.tries = 2 if view.number > 200 else self.tries
            return
        self.tries += 1
        found = self._find(small)
        self.suspects = found if self.tries == 1 else self.suspects & found
        if not self.suspects:
            self.tries = 2
        elif self.tries == 2:
            names = [str(n + 1) for n in sorted(self.suspects)]
            self.report(
                f"Argument {', '.join(names)} of the model is ignored: exchanged between samples, "
                "it leaves every output as it was.",
                "Look at forward(): the argument is not used, or what is made of it is "
                "overwritten. Remove it if that is intended.",
                where=[f"argument {n}" for n in names],
                measured={"change": 0.0},
                threshold={"change": 0.0},
                confidence=0.95,
            )

    def _find(self, small: Forward) -> set[int]:
        found: set[int] = set()
        for training in (True, False):
            out = output_at(self.session, small, evaluation=not training)
            base = main_output(out)
            if base is None or named_loss(out) is not None:
                return set()  # labels are an argument of it
            unmoved = set()
            for number, values in enumerate(small.inputs):
                if values.ndim == 0 or values.shape[0] != small.size or self._is_target(values):
                    continue
                if bool((values == values[:1]).all()):
                    continue

                def rolled(n: int, v: Tensor, number: int = number) -> Tensor:
                    return v.roll(1, 0) if n == number else v

                moved = main_output(
                    output_at(self.session, _with(small, rolled), evaluation=not training)
                )
                if moved is not None and torch.equal(moved, base):
                    unmoved.add(number)
            found = unmoved if training else found & unmoved
            if len(unmoved) == len(small.inputs):
                return set()  # nothing arrives at all: another rule says so
        return found

    def _is_target(self, values: Tensor) -> bool:
        """Whether ``values`` are (a part of) what the loss compares with."""
        for call in self.session.losses:
            target = call.target
            if (
                target is not None
                and target.shape[1:] == values.shape[1:]
                and torch.equal(target[: len(values)].to(values.dtype), values)
            ):
                return True
        return False


RULES: tuple[type[Rule], ...] = (Place, Ignored)
