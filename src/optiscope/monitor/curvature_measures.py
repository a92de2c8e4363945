"""Instruments of the curvature: where in its parabola a step ended, sharpness and trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optiscope.monitor.budget import Budget
from optiscope.monitor.events import Forward, WatchedStep
from optiscope.monitor.measure import BatchMeasure, fork, on_output
from optiscope.monitor.probe import probing
from optiscope.monitor.series import Series
from optiscope.objective.functional import functional_call

__all__ = ["Alpha", "Sharpness", "parabola_position"]


class Alpha(BatchMeasure):
    """Where in the parabola along the step it ended: -1 at the start, 0 the minimum, 1 beyond."""

    name = "alpha"
    samples = 64

    def wants_before(self, number: int) -> bool:
        """Weights before and after the step."""
        return self.budget.due(self.name, number)

    def measure(self, view: WatchedStep) -> None:
        """Fit a parabola to loss and slope at both ends of the step."""
        found = self.batch(view)
        if found is None or not view.before:
            return
        forward, target, loss = found
        with probing(self.session) as model:
            values = dict(model.named_parameters())
            moved = {n: values[n] for n in values if id(values[n]) in view.before}
            ends = []
            for place in (
                {n: view.before[id(p)] for n, p in moved.items()},
                {n: p.detach().clone() for n, p in moved.items()},
            ):
                fork(model, view.number)
                ends.append(_value_and_gradient(model, forward, target, loss, place))
            step = {n: p.detach() - view.before[id(p)] for n, p in moved.items()}
        (f0, g0), (f1, g1) = ends
        slopes = [sum(float((g[n] * step[n]).sum()) for n in step) for g in (g0, g1)]
        alpha = parabola_position(f0, f1, slopes[0], slopes[1])
        if alpha is not None:
            self.series.add("alpha", view.number, alpha)


def parabola_position(f0: float, f1: float, slope0: float, slope1: float) -> float | None:
    """Position of the end of a step (t = 1) in the parabola fitted along it.

    -1 is the start, 0 the minimum, 1 the point beyond it at the height of the start. Least squares
    through both values and both slopes; None where the parabola opens downwards.
    """
    # f0 + b t + c t^2 with f(1) = f1, f'(0) = slope0, f'(1) = slope1
    rows = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    right = torch.tensor([f1 - f0, slope0, slope1], dtype=torch.float64)
    if not bool(torch.isfinite(right).all()):
        return None
    b, c = torch.linalg.lstsq(rows, right[:, None]).solution.flatten().tolist()
    if c <= 0 or b >= 0:
        return None
    return max(-1.0, min(1.0 / (-float(b) / (2 * float(c))) - 1.0, 10.0))


class Sharpness(BatchMeasure):
    """Largest Hessian eigenvalue of the batch against 2 / rate, and the trace."""

    name = "curvature"
    samples = 64

    def __init__(self, series: Series, budget: Budget) -> None:
        super().__init__(series, budget)
        self.direction: dict[str, Tensor] | None = None

    def measure(self, view: WatchedStep) -> None:
        """Power iteration from the direction of the last look, and a probe of the trace."""
        found = self.batch(view)
        if found is None:
            return
        forward, target, loss = found
        with probing(self.session) as model:
            names = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
            generator = torch.Generator().manual_seed(view.number)
            warm = self.direction
            v = warm or {n: _signs(p, generator) for n, p in names.items()}
            value = 0.0
            for _ in range(2 if warm else 8):
                size = math.sqrt(sum(float(x.square().sum()) for x in v.values()))
                v = {n: x / max(size, 1e-30) for n, x in v.items()}
                fork(model, view.number)
                product = _hessian_product(model, forward, target, loss, names, v)
                value = sum(float((product[n] * v[n]).sum()) for n in v)
                if sum(float(x.square().sum()) for x in product.values()) == 0:
                    return
                v = product
            size = math.sqrt(sum(float(x.square().sum()) for x in v.values()))
            self.direction = {n: x / size for n, x in v.items()}
            signs = {n: _signs(p, generator) for n, p in names.items()}
            fork(model, view.number)
            product = _hessian_product(model, forward, target, loss, names, signs)
        self.series.add("sharpness", view.number, value)
        self.series.add("sharpness x rate", view.number, value * view.rates[0])
        trace = sum(float((product[n] * signs[n]).sum()) for n in signs)
        self.series.add("trace", view.number, trace)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, like.shape, generator=generator, device="cpu") * 2 - 1
    return signs.to(like.device, like.dtype)


def _loss_at(
    model: nn.Module,
    forward: Forward,
    target: Tensor,
    loss: Callable[..., Any],
    place: Mapping[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss at a place of the weights, on copies of the buffers, and the leaves it hangs on."""
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    leaves = {n: p.clone().requires_grad_() for n, p in place.items()}
    output = functional_call(model, {**buffers, **leaves}, forward.args, forward.kwargs)
    return on_output(loss)(output, target), leaves


def _zeros_for_none(
    leaves: Mapping[str, Tensor], gradients: Sequence[Tensor | None]
) -> dict[str, Tensor]:
    return {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(leaves.items(), gradients, strict=True)
    }


def _value_and_gradient(
    model: nn.Module,
    forward: Forward,
    target: Tensor,
    loss: Callable[..., Any],
    place: Mapping[str, Tensor],
) -> tuple[float, dict[str, Tensor]]:
    with torch.enable_grad():
        value, leaves = _loss_at(model, forward, target, loss, place)
        gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return float(value.detach()), _zeros_for_none(leaves, gradients)


def _hessian_product(
    model: nn.Module,
    forward: Forward,
    target: Tensor,
    loss: Callable[..., Any],
    place: Mapping[str, Tensor],
    v: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    with torch.enable_grad():
        value, leaves = _loss_at(model, forward, target, loss, place)
        first = torch.autograd.grad(
            value, list(leaves.values()), create_graph=True, allow_unused=True
        )
        pairs = [(g, v[n]) for n, g in zip(leaves, first, strict=True) if g is not None]
        along = torch.stack([(g * x).sum() for g, x in pairs]).sum()
        second = torch.autograd.grad(along, list(leaves.values()), allow_unused=True)
    return _zeros_for_none(leaves, second)
