"""Lark with one thing changed at a time, on digits, MNIST and Fashion-MNIST, beside baselines.

Four short problems of the kind on which Lark's defaults were chosen: ``digits_mlp`` and
``digits_conv`` (10 epochs, two seeds), ``mnist_logreg`` (3 epochs) and ``fmnist_mlp`` on its first
10,000 images (4 epochs). Every optimizer anneals linearly to zero. What is
reported is training loss and validation accuracy at the end, means over seeds; test sets are not
looked at.
Run with ``python benchmarks/lark_ablations.py --data FOLDER [--json FILE] [VARIANT ...]``.

Index legend: K kept pairs of a factor.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from optiscope import problems
from optiscope.data.samples import Samples
from optiscope.optim import kronecker
from optiscope.optim.lark import Lark
from optiscope.optim.low_rank import shrink_values

Gains = Callable[[Tensor, Tensor, int, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Task:
    """A problem, shortened."""

    problem: str
    epochs: int
    seeds: int
    images: int | None = None


TASKS = {
    "digits_mlp": Task("digits_mlp", 10, 2),
    "digits_conv": Task("digits_conv", 10, 2),
    "mnist_logreg": Task("mnist_logreg", 3, 1),
    "fmnist_mlp_10k": Task("fmnist_mlp", 4, 1, 10_000),
}


@dataclass(frozen=True)
class Variant:
    """Lark with settings, told the horizon or not, with L2 in the loss, other gains or batches."""

    settings: dict[str, float] = field(default_factory=dict)
    horizon: bool = True
    l2: float = 0.0
    gains: Gains = kronecker.gains
    batch: int | None = None


def shrunk(spread: float) -> Gains:
    """Eigenvalues drawn towards the rest, as if their standard deviation were spread * value."""

    def gains(values: Tensor, trace: Tensor, size: int, power: float) -> tuple[Tensor, Tensor]:
        if values.shape[-1] < size:
            rest = (trace - values.sum(dim=-1)) / (size - values.shape[-1])
            values = shrink_values(values, rest.unsqueeze(-1), (spread * values).square())
        return kronecker_gains(values, trace, size, power)

    return gains


def clear_of_the_rest(times: float) -> Gains:
    """Only eigenvalues above a multiple of the rest count: rank chosen by the spectrum."""

    def gains(values: Tensor, trace: Tensor, size: int, power: float) -> tuple[Tensor, Tensor]:
        coefficients, rest = kronecker_gains(values, trace, size, power)
        if values.shape[-1] == size:
            return coefficients, rest
        kept = values > times * rest.unsqueeze(-1)
        return torch.where(kept, coefficients, torch.zeros_like(coefficients)), rest

    return gains


kronecker_gains = kronecker.gains

VARIANTS = {
    "default": Variant(),
    **{f"rank {k}": Variant({"rank": k}) for k in (0, 4, 8, 16, 64, 128)},
    **{f"power {p}": Variant({"power": p}) for p in (0.25, 0.35)},
    **{f"memory {s}": Variant({"memory": s}) for s in (20, 400)},
    **{f"gather_every {s}": Variant({"gather_every": s}) for s in (1, 5, 10)},
    **{f"renew_every {s}": Variant({"renew_every": s}) for s in (2, 5, 20, 50)},
    **{f"growth {g}": Variant({"growth": g}) for g in (0.0, 0.03, 0.15)},
    **{f"lr {f}": Variant({"lr": f}) for f in (0.25, 0.5, 2.0, 4.0)},
    "no horizon": Variant(horizon=False),
    "l2 5e-4": Variant(l2=5e-4),
    **{f"l2 5e-4, lr {f}": Variant({"lr": f}, l2=5e-4) for f in (0.25, 4.0)},
    "weight_decay 0.1": Variant({"weight_decay": 0.1}),
    **{f"shrunk by spread {s}": Variant(gains=shrunk(s)) for s in (0.2, 0.5)},
    **{
        f"batch {b}, lr {f}": Variant({"lr": f}, batch=b)
        for b in (32, 512, 1024)
        for f in (0.5, 1.0, 2.0)
    },
    **{f"above {t} of the rest": Variant(gains=clear_of_the_rest(t)) for t in (3, 10)},
}
BASELINES: dict[str, Callable[[Any, int], Optimizer]] = {
    **{
        f"adamw {r}": lambda p, _, r=r: AdamW(p, lr=r) for r in (5e-4, 1e-3, 2e-3, 4e-3, 1e-2, 3e-2)
    },
    **{
        f"momentum {r}": lambda p, _, r=r: SGD(p, lr=r, momentum=0.9)
        for r in (0.01, 0.02, 0.05, 0.1, 0.2)
    },
}


def score(model: torch.nn.Module, problem: Any, samples: Samples) -> tuple[float, float]:
    """Mean loss and accuracy in percent over samples."""
    loss = hits = 0.0
    model.eval()
    with torch.no_grad():
        for part in torch.arange(len(samples)).split(2000):
            x, y = samples.select(part)
            outputs = model(x)
            loss += float(problem.loss(outputs, y).sum())
            hits += float(problem.metric.compute(outputs, y).sum())
    model.train()
    return loss / len(samples), 100 * hits / len(samples)


def train(
    task: Task,
    make: Callable[[Any, int], Optimizer],
    anneal: bool,
    l2: float,
    seed: int,
    data: Path,
    batch: int | None = None,
) -> tuple[float, float]:
    """Training loss and validation accuracy in percent at the end."""
    problem = problems.get(task.problem)
    splits = problem.data(data)
    samples = splits.train
    if task.images is not None:
        samples = samples.subset(torch.arange(task.images))
    torch.manual_seed(seed)
    model = problem.make_model()
    size = batch or problem.batch_size
    batches = len(samples) // size
    horizon = task.epochs * batches
    optimizer = make(model.parameters(), horizon)
    first = [group["lr"] for group in optimizer.param_groups]
    order = torch.Generator().manual_seed(seed)
    for step in range(horizon):
        if step % batches == 0:
            shuffled = torch.randperm(len(samples), generator=order)
        if anneal:
            for group, rate in zip(optimizer.param_groups, first, strict=True):
                group["lr"] = rate * (1 - step / horizon)
        at = step % batches * size
        x, y = samples.select(shuffled[at : at + size])
        optimizer.zero_grad()
        loss = problem.loss(model(x), y).mean()
        if l2:
            weights = [p for p in model.parameters() if p.ndim > 1]
            loss = loss + 0.5 * l2 * torch.stack([w.square().sum() for w in weights]).sum()
        loss.backward()
        optimizer.step()
    if isinstance(optimizer, Lark):
        optimizer.eval()
    few = samples.subset(torch.arange(min(len(samples), 10_000)))
    return score(model, problem, few)[0], score(model, problem, splits.valid)[1]


@contextmanager
def with_gains(gains: Gains) -> Iterator[None]:
    """Lark with another rule from eigenvalues to gains."""
    with mock.patch.object(kronecker, "gains", gains):
        yield


def run(name: str, tasks: list[str], data: Path) -> dict[str, dict[str, float]]:
    """Scores of a variant or baseline on each task, means over seeds."""
    found = {}
    for label in tasks:
        task = TASKS[label]
        scores = []
        for seed in range(task.seeds):
            if name in BASELINES:
                scores.append(train(task, BASELINES[name], True, 0.0, seed, data))
                continue
            variant = VARIANTS[name]

            def lark(p: Any, horizon: int, variant: Variant = variant) -> Optimizer:
                return Lark(p, horizon=horizon if variant.horizon else None, **variant.settings)

            with with_gains(variant.gains):
                scores.append(train(task, lark, False, variant.l2, seed, data, variant.batch))
        losses, accuracies = zip(*scores, strict=True)
        found[label] = {
            "train_loss": sum(losses) / len(losses),
            "valid_accuracy": sum(accuracies) / len(accuracies),
        }
    return found


def main() -> None:
    known = [*VARIANTS, *BASELINES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(known))
    parser.add_argument("--data", type=Path, required=True, help="folder with MNIST, FashionMNIST")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--json", type=Path, help="file to write; what is in it is kept")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.variants or known:
        if name not in known:
            parser.error(f"expected a variant among {', '.join(known)}, got {name!r}")
        found = run(name, given.tasks, given.data)
        cells = [f"{s['train_loss']:.4f} {s['valid_accuracy']:.2f}" for s in found.values()]
        print(f"{name:24} {'   '.join(cells)}", flush=True)
        if given.json:
            kept = json.loads(given.json.read_text()) if given.json.exists() else {}
            kept[name] = {**kept.get(name, {}), **found}
            given.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
