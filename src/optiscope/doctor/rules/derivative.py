"""The gradient against differences of the loss: does the backward pass differentiate the forward?

A ``detach`` in the wrong place, a value that went through ``.item()``, numpy or ``.data``, a
backward pass written by hand with an error: each leaves a gradient that is not the derivative. It
is taken once, on a few samples, on copies.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, LossCall, WatchedStep
from optiscope.monitor.outputs import main_output
from optiscope.monitor.probe import probing, rows_of
from optiscope.objective.functional import functional_call

__all__ = ["RULES"]

TABLE = 65_521  # entries of random directions, a prime: repeated they fit no width
REACH, AGREES = 1e-6, 0.02


class Derivative(Rule):
    """A gradient that misses a part of the slope of the loss."""

    name = "gradient_is_not_the_derivative"
    family = "gradient_flow"
    AT = (12, 20)
    SAMPLES = 32
    LIMIT = 0.3
    DIRECTIONS = 3
    LARGEST = 2_000_000
    MOST = 8

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0
        self.suspects: dict[str, float] | None = None
        self.losses = 0

    def loss(self, call: LossCall) -> None:
        """Count losses between steps: several terms cannot be repeated."""
        self.losses += call.grad

    def after_step(self, view: WatchedStep) -> None:
        """Compare at two steps, where one forward and one loss make the whole step."""
        losses, self.losses = self.losses, 0
        if self.tries >= 2 or view.index or view.closure or view.number < self.AT[self.tries]:
            return
        forwards = [f for f in view.forwards if f.grad and f.args]
        plain = len(self.session.steps) == 1 and not self.session.other_optimizers
        if losses != 1 or len(forwards) != 1 or not plain or view.number > 200:
            self.tries = 2 if view.number > 200 else self.tries
            return
        self.tries += 1
        forward = forwards[0]
        target, prediction, out = forward.target, forward.prediction, forward.output
        if target is None or prediction is None or out is None or forward.autocast is not None:
            return
        if target.requires_grad or prediction.data_ptr() != out.data_ptr():
            return
        if getattr(self.session.loss_function, "reduction", "mean") == "none":
            return
        small = rows_of(forward, self.SAMPLES)
        if small is None or len(target) != forward.size:
            return
        found = self._compare(small)
        if found is None:
            self.tries = 2
            return
        if self.suspects is None:
            self.suspects = found
            if not found:
                self.tries = 2
            return
        both = {n: r for n, r in found.items() if n in self.suspects}
        if both:
            worst = max(both, key=lambda n: both[n])
            self.report(
                f"The gradient of {len(both)} weights is not the derivative of the loss: it misses "
                f"{min(both[worst], 9.99):.0%} of the slope along {worst}.",
                "Look for detach(), item(), numpy() or .data inside of forward, and at backward "
                "passes written by hand. If the gradient is stopped on purpose, nothing is wrong.",
                where=sorted(both),
                measured={"missed": both[worst]},
                threshold={"missed": self.LIMIT},
                confidence=0.85,
            )

    def _compare(self, small: Forward) -> dict[str, float] | None:
        """Part of the slope that the gradient misses, of weights where it is large; None where
        nothing can be said.

        In float64, along random directions: the slope of the loss against the gradient's product
        with the direction, first of all weights together, then of each.
        """
        model = self.session.model
        size = sum(p.numel() for p in model.parameters())
        if size > self.LARGEST or sum(t.numel() for t in small.inputs) > self.LARGEST:
            return None  # a dozen forwards in float64 would be felt
        if any(p.device.type != "cpu" or p.dtype not in (torch.float32, torch.float64)
               for p in model.parameters()):  # fmt: skip
            return None
        start = {n: p.detach().double() for n, p in model.named_parameters()}
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        with torch.enable_grad():
            values = {n: v.detach().requires_grad_(n in trained) for n, v in start.items()}
            loss = self._loss(small, values)
            if loss is None or not bool(torch.isfinite(loss)) or not loss.requires_grad:
                return None
            names = sorted(trained)
            grads = torch.autograd.grad(loss, [values[n] for n in names], allow_unused=True)
        gradient = {
            n: g for n, g in zip(names, grads, strict=True) if g is not None and start[n].ndim > 1
        }
        norms = {n: float(g.norm()) for n, g in gradient.items()}
        largest = max(norms.values(), default=0.0)
        if not 0 < largest < math.inf:
            return None
        used = [n for n in gradient if norms[n] > 1e-3 * largest]
        if self._agrees(small, start, gradient, used):
            return {}
        missed = self._missed(small, start, gradient, used)
        if missed is None or missed < 0.05:
            return None if missed is None else {}
        each = {n: self._missed(small, start, gradient, [n]) for n in used[: self.MOST]}
        return {n: m for n, m in each.items() if m is not None and m > self.LIMIT}

    def _agrees(
        self,
        small: Forward,
        start: dict[str, Tensor],
        gradient: dict[str, Tensor],
        names: list[str],
    ) -> bool:
        """Whether the slopes along two directions are the gradient's: then nothing is missed.

        It costs four forwards; a gradient that misses a part m of the slope passes both with a
        probability of about (1.6 AGREES / m)^2.
        """
        table = torch.randn(TABLE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        for turn in range(2):
            way: dict[str, Tensor] = {}
            for place, n in enumerate(names):
                size, norm = start[n].numel(), float(start[n].norm())
                first = (7919 * (place + 101 * turn)) % (TABLE // 2)
                entries = table[first:].repeat(1 + size // (TABLE - first))[:size]
                entries /= max(1.0, float(size) ** 0.5 / max(norm, 1e-3))
                way[n] = entries.reshape(start[n].shape)
            ends = [
                self._loss(
                    small, start | {n: torch.add(start[n], way[n], alpha=reach) for n in names}
                )
                for reach in (REACH, -REACH)
            ]
            if ends[0] is None or ends[1] is None:
                return False
            slope = float(ends[0] - ends[1]) / (2 * REACH)
            said = sum(float(torch.dot(gradient[n].reshape(-1), way[n].reshape(-1))) for n in names)
            if not abs(slope - said) <= AGREES * abs(slope) or slope == 0:
                return False
        return True

    def _missed(
        self,
        small: Forward,
        start: dict[str, Tensor],
        gradient: dict[str, Tensor],
        names: list[str],
    ) -> float | None:
        """Share of the slope of ``names`` that is not the gradient's, over random directions."""
        generator = torch.Generator().manual_seed(3)
        rest = whole = bent = 0.0
        for _ in range(self.DIRECTIONS):
            way = {
                n: torch.randn(start[n].shape, generator=generator, dtype=torch.float64)
                / max(1.0, float(start[n].numel()) ** 0.5 / max(float(start[n].norm()), 1e-3))
                for n in names
            }
            slopes = []
            for reach in (1e-6, 5e-7):
                ends = [
                    self._loss(small, start | {n: start[n] + sign * reach * way[n] for n in names})
                    for sign in (1.0, -1.0)
                ]
                if ends[0] is None or ends[1] is None:
                    return None
                slopes.append(float(ends[0] - ends[1]) / (2 * reach))
            far, near = slopes
            said = sum(float((gradient[n] * way[n]).sum()) for n in names)
            flat = abs(near) < 1e-3 * abs(said)  # rounded, and trained straight through
            if flat or not math.isfinite(near) or abs(far - near) > 0.05 * abs(near) + 1e-9:
                return 0.0
            secant = self._secant(small, start, way)
            if secant is None:
                return None
            bent += (secant - near) ** 2
            rest += (near - said) ** 2
            whole += near**2
        if whole == 0 or bent > 0.25 * rest:
            return 0.0  # steps, as of rounded weights: trained straight through on purpose
        return math.sqrt(rest / whole)

    def _secant(
        self, small: Forward, start: dict[str, Tensor], way: dict[str, Tensor]
    ) -> float | None:
        """Slope of the loss over a hundredth of ``way`` to both sides."""
        ends = [
            self._loss(small, start | {n: start[n] + sign * 1e-2 * way[n] for n in way})
            for sign in (1.0, -1.0)
        ]
        if ends[0] is None or ends[1] is None:
            return None
        return float(ends[0] - ends[1]) / 2e-2

    def _loss(self, small: Forward, values: dict[str, Tensor]) -> Tensor | None:
        """The loss in float64 at ``values``, random numbers and modes as in training."""
        function: Any = self.session.loss_function
        target = small.target
        if not callable(function) or target is None:
            return None
        grad = torch.is_grad_enabled()
        with probing(self.session) as model, torch.set_grad_enabled(grad):
            torch.default_generator.manual_seed(0)
            state = {n: _double(b.clone()) for n, b in model.named_buffers()}
            args = tuple(_double(a.clone()) if isinstance(a, Tensor) else a for a in small.args)
            kwargs = {
                k: _double(a.clone()) if isinstance(a, Tensor) else a
                for k, a in small.kwargs.items()
            }
            try:
                out = main_output(functional_call(model, state | values, args, kwargs))
                if isinstance(function, nn.Module):
                    held = {n: _double(b) for n, b in function.named_buffers()}
                    held |= {n: _double(p.detach()) for n, p in function.named_parameters()}
                    loss = functional_call(function, held, (out, _double(target)))
                else:
                    loss = function(out, _double(target))
            except Exception:  # what cannot run in float64 cannot be compared
                return None
        return loss if isinstance(loss, Tensor) and loss.numel() == 1 else None


def _double(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


RULES: tuple[type[Rule], ...] = (Derivative,)
