"""Two short paired runs: does another activation learn faster?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ActivationComparison", "compare_activations"]


@dataclass(frozen=True)
class ActivationComparison:
    """Final losses of paired runs: ``before`` and ``after`` [seeds], the same seed at each place.

    ``difference`` is the mean of after - before (negative: the replacement learned faster),
    ``interval`` its 95 % t interval over the seeds, ``steps`` the length of each run.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]
    difference: float
    interval: tuple[float, float]
    steps: int
    replaced: tuple[str, ...]
    rate: float = 1e-3

    @property
    def faster(self) -> bool:
        """Whether the interval lies below zero."""
        return self.interval[1] < 0

    @property
    def sentence(self) -> str:
        """The result in words."""
        low, high = self.interval
        verdict = (
            "learns faster"
            if self.faster
            else "learns slower"
            if low > 0
            else "shows no difference that these seeds resolve"
        )
        return (
            f"With the replacement in {', '.join(self.replaced)} the network {verdict}: training "
            f"loss after {self.steps} steps changes by {self.difference:+.3g} "
            f"[{low:+.3g}, {high:+.3g}] (95 %, {len(self.before)} seeds, Adam at {self.rate:.3g})."
        )


def compare_activations(
    model: nn.Module,
    loss: Callable[[Any, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    replace: Mapping[type[nn.Module], Callable[[], nn.Module]] | None = None,
    steps: int = 150,
    batch_size: int = 64,
    rate: float = 1e-3,
    seeds: Sequence[int] = (0, 1, 2, 3),
) -> ActivationComparison:
    """Train copies of ``model`` with its activations and with others, in pairs.

    Both runs of a pair have the same seed for weights, batches and dropout, and use Adam. Layers
    are drawn anew by their ``reset_parameters``. The default replaces tanh and sigmoid by relu.
    ``model`` and the generators are left as they were. Raises ``ValueError`` where there is
    nothing to replace, or fewer than two seeds.
    """
    table = dict(replace) if replace is not None else {nn.Tanh: nn.ReLU, nn.Sigmoid: nn.ReLU}
    leaves = [n for n, m in model.named_modules() if not list(m.children())]
    places = [n for n, m in model.named_modules() if type(m) in table and n != leaves[-1]]
    if not places:
        raise ValueError("expected hidden activations that can be replaced, found none")
    if len(seeds) < 2:
        raise ValueError(f"expected at least two seeds, got {len(seeds)}")
    with torch.random.fork_rng(devices=[]):
        pairs = [
            [
                _train(model, loss, inputs, targets, changes, steps, batch_size, rate, seed)
                for changes in ({}, {n: table[type(model.get_submodule(n))] for n in places})
            ]
            for seed in seeds
        ]
    before, after = (tuple(pair[i] for pair in pairs) for i in (0, 1))
    differences = torch.tensor([b - a for a, b in pairs], dtype=torch.float64)
    from scipy import stats

    mean = float(differences.mean())
    error = float(differences.std()) / len(seeds) ** 0.5
    half = float(stats.t.ppf(0.975, len(seeds) - 1)) * error
    return ActivationComparison(
        before, after, mean, (mean - half, mean + half), steps, tuple(places), rate
    )


def _train(
    model: nn.Module,
    loss: Callable[[Any, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    changes: Mapping[str, Callable[[], nn.Module]],
    steps: int,
    batch_size: int,
    rate: float,
    seed: int,
) -> float:
    """Mean training loss of the last tenth of a short run."""
    torch.default_generator.manual_seed(seed)
    copied = copy.deepcopy(model).train()
    for module in copied.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    for name, make in changes.items():
        parent, _, child = name.rpartition(".")
        setattr(copied.get_submodule(parent), child, make())
    optimizer = torch.optim.Adam(copied.parameters(), rate)
    losses = []
    for _ in range(steps):
        picked = torch.randint(0, len(inputs), (min(batch_size, len(inputs)),))
        optimizer.zero_grad()
        value = loss(copied(inputs[picked]), targets[picked])
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)
