"""Lark with one thing changed at a time, on digits, MNIST and Fashion-MNIST, beside baselines.

Short problems of the kind on which Lark's defaults were chosen: five networks on digits (10 epochs,
two seeds), ``mnist_logreg`` (3 epochs), ``mnist_mlp`` (4 epochs, three seeds), ``fmnist_mlp``
(4 epochs), and on their first 10,000 images ``fmnist_mlp`` (4 epochs) and ``fmnist_2c2d``
(3 epochs). ``--seeds`` asks for other numbers of seeds. Two full problems, ``fmnist_2c2d``
(3 epochs) and ``cifar10_3c3d`` (6 epochs), are there for the sensitivity to ``lr`` alone and run
where ``--tasks`` names them; nothing was chosen by them. Every optimizer anneals linearly to zero.
What is reported is training loss and validation accuracy at the end, means over seeds; test sets
are not looked at.
Run with ``python benchmarks/lark_ablations.py --data FOLDER [--json FILE] [VARIANT ...]``;
baselines at other batch sizes, such as ``"adamw 0.004, batch 512"``, run where they are named.

Index legend: K kept pairs of a factor.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from optiscope import problems
from optiscope.data.samples import Samples
from optiscope.linalg.low_rank import shrink_values
from optiscope.optim.lark import factors, matrix_step
from optiscope.optim.lark.factors import ThinParts
from optiscope.optim.lark.matrix_step import LayerState
from optiscope.optim.lark.optimizer import Lark
from optiscope.optim.lark.settings import LarkSettings
from optiscope.train.device import in_fast_layout, prepare_process

EVERY, GROWTH = 10, 0.07  # Lark's own: steps between corrections of a length, and their size
lark_gather = matrix_step.gather
lark_lengthen = matrix_step.lengthen
lark_renew = matrix_step.renew

Gains = Callable[[Tensor, Tensor, int, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Task:
    """A problem, shortened; where it is not ``short`` enough it runs only when named."""

    problem: str
    epochs: int
    seeds: int
    images: int | None = None
    short: bool = True


TASKS = {
    "digits_mlp": Task("digits_mlp", 10, 2),
    "digits_conv": Task("digits_conv", 10, 2),
    "digits_resnet": Task("digits_resnet", 10, 2),
    "digits_rnn": Task("digits_rnn", 10, 2),
    "digits_attention": Task("digits_attention", 10, 2),
    "mnist_logreg": Task("mnist_logreg", 3, 1),
    "mnist_mlp": Task("mnist_mlp", 4, 3),
    "fmnist_mlp": Task("fmnist_mlp", 4, 1),
    "fmnist_mlp_10k": Task("fmnist_mlp", 4, 1, 10_000),
    "fmnist_2c2d_10k": Task("fmnist_2c2d", 3, 1, 10_000),
    "fmnist_2c2d": Task("fmnist_2c2d", 3, 1, short=False),
    "cifar10_3c3d": Task("cifar10_3c3d", 6, 1, short=False),
}


@dataclass(frozen=True)
class Variant:
    """Lark with one thing changed.

    Attributes:
        settings: of the optimizer.
        horizon: whether it is told the horizon.
        l2: coefficient of an L2 term in the loss.
        gains: from eigenvalues to coefficients.
        batch: samples in a batch, in place of the problem's.
        products: ``factors`` gathers H z with Gaussian z in place of gradients; ``length`` corrects
            lengths by gradient and curvature along the last step, in place of the cosine.
        tolerance: the factors are renewed only where they predict a fresh gradient badly, see
            :class:`PredictiveTest`; None renews them whenever it is time.
    """

    settings: dict[str, float] = field(default_factory=dict)
    horizon: bool = True
    l2: float = 0.0
    gains: Gains = factors.gains
    batch: int | None = None
    products: str = ""
    tolerance: float | None = None


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


kronecker_gains = factors.gains

L2 = ("5e-4", "2e-3")  # the second is that of ``cifar10_3c3d``
BATCHES = (32, 512, 1024)  # beside the problems' own

VARIANTS = {
    "default": Variant(),
    **{f"rank {k}": Variant({"rank": k}) for k in (0, 4, 8, 16, 64, 128)},
    **{f"power {p}": Variant({"power": p}) for p in (0.25, 0.3, 0.35, 0.5)},
    **{f"memory {s}": Variant({"memory": s}) for s in (20, 400)},
    **{f"gather_every {s}": Variant({"gather_every": s}) for s in (1, 5, 10)},
    **{f"renew_every {s}": Variant({"renew_every": s}) for s in (2, 5, 20, 50)},
    **{f"growth {g}": Variant({"growth": g}) for g in (0.0, 0.03, 0.15)},
    "growth 0.0, lr 0.5": Variant({"growth": 0.0, "lr": 0.5}),
    **{f"lr {f}": Variant({"lr": f}) for f in (0.25, 0.5, 2.0, 4.0)},
    **{f"full up to {k}": Variant({"full_up_to": k}) for k in (64, 128, 256, 512)},
    "full up to 128, power 0.5": Variant({"full_up_to": 128, "power": 0.5}),
    "no horizon": Variant(horizon=False),
    **{f"l2 {text}": Variant(l2=float(text)) for text in L2},
    **{
        f"l2 {text}, lr {f}": Variant({"lr": f}, l2=float(text))
        for text in L2
        for f in (0.25, 0.5, 2.0, 4.0)
    },
    "weight_decay 0.1": Variant({"weight_decay": 0.1}),
    **{f"shrunk by spread {s}": Variant(gains=shrunk(s)) for s in (0.2, 0.5)},
    **{f"batch {b}, lr {f}": Variant({"lr": f}, batch=b) for b in BATCHES for f in (0.5, 1.0, 2.0)},
    "factors from Hessian products": Variant({"power": 0.25}, products="factors"),
    "factors from Hessian products, power 0.5": Variant({"power": 0.5}, products="factors"),
    "lengths from Hessian products": Variant({"growth": 0.0}, products="length"),
    **{
        f"renewed where missed by {t}": Variant({"power": 0.5}, tolerance=t)
        for t in (0.3, 1.0, 3.0)
    },
    **{f"above {t} of the rest": Variant(gains=clear_of_the_rest(t)) for t in (3, 10)},
}


@dataclass(frozen=True)
class Baseline:
    """An optimizer to compare with.

    Attributes:
        make: the optimizer of some parameters.
        batch: samples in a batch, in place of the problem's.
    """

    make: Callable[..., Optimizer]
    batch: int | None = None

    def tuned(self, parameters: Any, horizon: int) -> Optimizer:
        """The optimizer, which is told no horizon."""
        return self.make(parameters)


RATES: dict[str, Baseline] = {
    **{f"adamw {r}": Baseline(partial(AdamW, lr=r)) for r in (5e-4, 1e-3, 2e-3, 4e-3, 1e-2, 3e-2)},
    **{
        f"momentum {r}": Baseline(partial(SGD, lr=r, momentum=0.9))
        for r in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    },
}
BASELINES = RATES | {
    f"{name}, batch {b}": replace(baseline, batch=b)
    for b in BATCHES
    for name, baseline in RATES.items()
}


def score(model: torch.nn.Module, problem: Any, samples: Samples) -> tuple[float, float]:
    """Mean loss and accuracy in percent over samples."""
    loss = hits = 0.0
    model.eval()
    with torch.no_grad():
        for part in torch.arange(len(samples)).split(2000):
            x, y = samples.select(part)
            outputs = model(in_fast_layout(x))
            loss += float(problem.loss(outputs, y).sum())
            hits += float(problem.metric.compute(outputs, y).sum())
    model.train()
    return loss / len(samples), 100 * hits / len(samples)


class Products:
    """What a variant does with products of the Hessian; without one, nothing."""

    def __init__(self, kind: str, model: torch.nn.Module, optimizer: Optimizer) -> None:
        self.kind, self.optimizer, self.count = kind, optimizer, 0
        self.parameters = list(model.parameters())
        self.before: list[Tensor] = []
        self.images: dict[int, Tensor] = {}
        self.random = torch.Generator().manual_seed(0)

    def backward(self, loss: Tensor) -> None:
        """Gradients; in the steps that need them, products too."""
        due = self.kind == "factors" or (self.kind == "length" and self.count % EVERY == 1)
        if not due:
            loss.backward()
            return
        gradients = torch.autograd.grad(loss, self.parameters, create_graph=True)
        if self.kind == "factors":
            along = [torch.randn(p.shape, generator=self.random) for p in self.parameters]
        else:
            pairs = zip(self.parameters, self.before, strict=True)
            along = [p.detach() - before for p, before in pairs]
        products = torch.autograd.grad(gradients, self.parameters, along)
        for p, gradient in zip(self.parameters, gradients, strict=True):
            p.grad = gradient.detach().clone()
        if self.kind == "factors":
            grads = [p.grad for p in self.parameters if p.grad is not None]
            self.images = {g.data_ptr(): y for g, y in zip(grads, products, strict=True)}
        else:
            self._lengthen(along, list(products))

    def _lengthen(self, steps: list[Tensor], products: list[Tensor]) -> None:
        """By the multiple of the last step that a quadratic would still go along it."""
        for p, step, product in zip(self.parameters, steps, products, strict=True):
            if "log_length" not in self.optimizer.state[p] or p.grad is None:
                continue
            curvature, slope = float((step * product).sum()), float((p.grad * step).sum())
            further = -slope / curvature if curvature > 0 else math.copysign(math.inf, -slope)
            length = self.optimizer.state[p]["log_length"]
            length += EVERY * GROWTH * math.tanh(further)
            length.clamp_(math.log(0.01), math.log(0.5))

    def step(self) -> None:
        """The optimizer's step."""
        if self.kind == "length" and self.count % EVERY == 0:
            self.before = [p.detach().clone() for p in self.parameters]
        with mock.patch.object(matrix_step, "gather", self._gather):
            self.optimizer.step()
        self.count += 1

    def _gather(
        self,
        state: LayerState,
        gradient: Tensor,
        thin: ThinParts,
        settings: LarkSettings,
        live: Tensor,
    ) -> LayerState:
        if self.kind != "factors":
            return lark_gather(state, gradient, thin, settings, live)
        image = self.images[gradient.data_ptr()].flatten(1)
        return lark_gather(state, image, factors.thin_parts(image, state.by), settings, live)


class PredictiveTest:
    """Factors are renewed only where they predict a fresh gradient badly.

    With gains (eigenvalue / rest)^(-1/2), of power one half, a factor predicts that a whitened
    gradient has as much square per kept direction as per other direction. Where on either side the
    ratio of the two is not within a factor (1 + tolerance) of one, the layer's factors are renewed;
    else they stay. A side of full rank has no other direction and is not asked; where neither can
    be, and where the factors are not known yet, they are renewed.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.missed = torch.zeros(())
        self.renewed = self.asked = 0

    def lengthen(
        self, state: LayerState, gradient: Tensor, thin: ThinParts, *rest: Any
    ) -> LayerState:
        """Lark's own, after the test."""
        square = gradient.square().sum(dim=(-2, -1))
        sides = (
            (thin.rows.square().sum(dim=-1), state.left_gains, gradient.shape[-2]),
            (thin.columns.square().sum(dim=-2), state.right_gains, gradient.shape[-1]),
        )
        partial = [side for side in sides if side[0].shape[-1] < side[2]]
        fits = torch.full_like(square, bool(partial), dtype=torch.bool)
        for kept, gains, size in partial:
            other = (square - kept.sum(dim=-1)) / (size - kept.shape[-1])
            ratio = (kept * (1 + gains).square()).mean(dim=-1) / other
            fits &= (ratio.log().abs() <= math.log1p(self.tolerance)) & gains.ne(0).any(dim=-1)
        self.missed = ~fits
        return lark_lengthen(state, gradient, thin, *rest)

    def renew(self, state: LayerState, settings: LarkSettings) -> LayerState:
        """Lark's own, of the layers that were missed."""
        self.asked += self.missed.numel()
        self.renewed += int(self.missed.sum())
        fresh = lark_renew(state, settings)
        return LayerState(
            **{
                name: torch.where(
                    self.missed[(...,) + (None,) * (old.ndim - self.missed.ndim)],
                    getattr(fresh, name),
                    old,
                )
                for name, old in vars(state).items()
            }
        )

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Lark with this test."""
        with (
            mock.patch.object(matrix_step, "lengthen", self.lengthen),
            mock.patch.object(matrix_step, "renew", self.renew),
        ):
            yield


def train(
    task: Task,
    make: Callable[[Any, int], Optimizer],
    anneal: bool,
    l2: float,
    seed: int,
    data: Path,
    batch: int | None = None,
    products: str = "",
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
    drive = Products(products, model, optimizer)
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
        if splits.augment is not None:
            x = splits.augment(x, order)
        optimizer.zero_grad()
        loss = problem.loss(model(in_fast_layout(x)), y).mean()
        if l2:
            weights = [p for p in model.parameters() if p.ndim > 1]
            loss = loss + 0.5 * l2 * torch.stack([w.square().sum() for w in weights]).sum()
        drive.backward(loss)
        drive.step()
    if isinstance(optimizer, Lark):
        optimizer.eval()
    few = samples.subset(torch.arange(min(len(samples), 10_000)))
    return score(model, problem, few)[0], score(model, problem, splits.valid)[1]


@contextmanager
def with_gains(gains: Gains) -> Iterator[None]:
    """Lark with another rule from eigenvalues to gains."""
    with mock.patch.object(factors, "gains", gains):
        yield


def run(
    name: str, tasks: list[str], data: Path, seeds: int | None = None
) -> dict[str, dict[str, float]]:
    """Scores of a variant or baseline on each task, means over seeds."""
    found = {}
    for label in tasks:
        task = TASKS[label]
        scores = []
        tolerance = None if name in BASELINES else VARIANTS[name].tolerance
        tested = None if tolerance is None else PredictiveTest(tolerance)
        for seed in range(seeds or task.seeds):
            if name in BASELINES:
                baseline = BASELINES[name]
                scores.append(train(task, baseline.tuned, True, 0.0, seed, data, baseline.batch))
                continue
            variant = VARIANTS[name]

            def lark(p: Any, horizon: int, variant: Variant = variant) -> Optimizer:
                return Lark(p, total_steps=horizon if variant.horizon else None, **variant.settings)

            with with_gains(variant.gains), tested.in_force() if tested else nullcontext():
                scores.append(
                    train(
                        task, lark, False, variant.l2, seed, data, variant.batch, variant.products
                    )
                )
        losses, accuracies = zip(*scores, strict=True)
        found[label] = {
            "train_loss": sum(losses) / len(losses),
            "valid_accuracy": sum(accuracies) / len(accuracies),
            "seeds": len(scores),
        }
        if tested:
            found[label]["renewed_share"] = tested.renewed / tested.asked
    return found


def main() -> None:
    known = [*VARIANTS, *BASELINES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(known))
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    short = [name for name, task in TASKS.items() if task.short]
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=short)
    parser.add_argument("--seeds", type=int, help="of each task, in place of its own number")
    parser.add_argument("--json", type=Path, help="file to write; what is in it is kept")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    prepare_process()
    torch.set_num_threads(given.threads)
    for name in given.variants or [*VARIANTS, *RATES]:
        if name not in known:
            parser.error(f"expected a variant among {', '.join(known)}, got {name!r}")
        found = run(name, given.tasks, given.data, given.seeds)
        cells = [f"{s['train_loss']:.4f} {s['valid_accuracy']:.2f}" for s in found.values()]
        print(f"{name:24} {'   '.join(cells)}", flush=True)
        if given.json:
            kept = json.loads(given.json.read_text()) if given.json.exists() else {}
            kept[name] = {**kept.get(name, {}), **found}
            given.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
