"""Instruments of the cockpit by name and level, and those that read what a step offers anyway."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optiscope.monitor.budget import Budget
from optiscope.monitor.curvature_measures import Alpha, Sharpness
from optiscope.monitor.events import Forward, WatchedStep, at_looks
from optiscope.monitor.graph import saved_activations
from optiscope.monitor.measure import Measure
from optiscope.monitor.noise_measures import GradientNoise, SignalToNoise
from optiscope.monitor.series import Series

__all__ = ["LEVELS", "MEASURES", "Measure", "chosen_measures"]


class Norms(Measure):
    """Norms of gradients, updates and weights by layer, and the way from the start."""

    name = "norms"

    def __init__(self, series: Series, budget: Budget) -> None:
        super().__init__(series, budget)
        self.first: dict[int, Tensor] = {}

    def wants_before(self, number: int) -> bool:
        """Weights before and after the step."""
        return self.budget.due(self.name, number)

    def before_step(self, view: WatchedStep) -> None:
        """Read the gradients before the optimizer may change them."""
        if view.tick and not view.index and self.budget.due(self.name, view.number):
            start = time.perf_counter()
            _ = view.gradient_norms
            self.budget.charge(self.name, time.perf_counter() - start)

    def measure(self, view: WatchedStep) -> None:
        """Norms of this step, and the distance from the first weights."""
        if not view.before:
            return
        step = view.number
        weights, updates = view.weight_norms, view.update_norms
        gradients = view.gradient_norms
        self.series.add("gradient norm", step, view.gradient_norm)
        self.series.add("update norm", step, _root(updates))
        self.series.add("weight norm", step, _root(weights))
        matrices = {view.name(p) for p in view.parameters if p.ndim > 1}
        self.series.add_layers(
            "gradient norm", step, {n: v for n, v in gradients.items() if n in matrices}
        )
        ratio = {n: updates[n] / weights[n] for n in updates if weights.get(n, 0) > 0}
        self.series.add_layers(
            "update / weight", step, {n: v for n, v in ratio.items() if n in matrices}
        )
        if not self.first and view.number == 0:
            self.first = {i: v.clone() for i, v in view.before.items()}
        if self.first:
            kept = [p for p in view.parameters if id(p) in self.first]
            way = torch._foreach_sub([p.detach() for p in kept], [self.first[id(p)] for p in kept])
            norms = [norm.double().cpu() for norm in torch._foreach_norm(way)]
            self.series.add("distance", step, float(torch.stack(norms).norm()))


class Activations(Measure):
    """Share of dead and saturated units by layer, read from the graph."""

    name = "activations"
    reads_forwards = True

    @at_looks
    def forward(self, forward: Forward) -> None:
        """Read the graph of a looked-at training forward."""
        step = self.session.step
        if not forward.nodes or not forward.look or not self.budget.due(self.name, step):
            return
        with self.budget.spend(self.name, step):
            shares: dict[str, float] = {}
            for number, activation in enumerate(saved_activations(forward.nodes)):
                name = self.session.names.get(id(activation.parameter), "")
                layer = name.rpartition(".")[0] or str(number)
                values = activation.values
                if activation.kind in ("relu", "leaky_relu"):
                    share = float((values <= 0).float().mean())
                elif activation.kind in ("tanh", "sigmoid"):
                    centred = values if activation.kind == "tanh" else 2 * values - 1
                    share = float((centred.abs() > 0.97).float().mean())
                else:
                    share = float((values < -3).float().mean())
                shares[f"{layer} {activation.kind}"] = share
            self.series.add_layers("off or saturated", step, shares)

    def after_step(self, view: WatchedStep) -> None:
        """Nothing: the forward pass said it."""


class Histogram(Measure):
    """Histogram of gradient and weight entries at the latest look."""

    name = "histogram"
    BINS = 41

    def __init__(self, series: Series, budget: Budget) -> None:
        super().__init__(series, budget)
        self.latest: dict[str, Any] = {}

    def measure(self, view: WatchedStep) -> None:
        """Count entries in bins that are even in the logarithm of their size."""
        values = [
            p.grad.detach().flatten().float() for p in view.with_gradient if p.grad is not None
        ]
        if not values:
            return
        size = torch.cat(values).abs()
        size = size[size > 0].log10().cpu()
        if not len(size):
            return
        counts = torch.histc(size, self.BINS, min=-12, max=4)
        self.latest = {
            "step": view.number,
            "low": -12,
            "high": 4,
            "counts": [int(c) for c in counts],
        }


def _root(values: Mapping[str, float]) -> float:
    return math.sqrt(sum(v * v for v in values.values()))


MEASURES: dict[str, type[Measure]] = {
    one.name: one
    for one in (Norms, Activations, Alpha, GradientNoise, SignalToNoise, Histogram, Sharpness)
}
LEVELS: dict[str, tuple[str, ...]] = {
    "light": ("norms", "activations"),
    "noise": ("norms", "activations", "alpha", "gradient tests", "signal to noise"),
    "full": tuple(MEASURES),
}


def chosen_measures(instruments: str | list[str], series: Series, budget: Budget) -> list[Measure]:
    """Instruments of a level or by name; raises ``KeyError`` with the unknown name."""
    names = LEVELS[instruments] if isinstance(instruments, str) else instruments
    return [MEASURES[name](series, budget) for name in names]
