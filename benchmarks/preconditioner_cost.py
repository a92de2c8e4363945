"""Wall-clock per epoch of the preconditioner's variants relative to torch's SGD.

Epochs of all optimizers alternate in one process, the order turned round each time; the first round
warms up; ratios are taken within a round and their median is reported with the range. One
estimation an epoch. Beside seconds stand gradient-equivalents: gradients, and products weighted by
their own measured cost. Run: python benchmarks/preconditioner_cost.py --problem mnist_mlp
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from optiscope import problems
from optiscope.optim.preconditioner.variants import AdaptiveSGD, OnlyAdaptiveSGD, PreconditionedSGD

BARS = {
    "mnist_mlp": {"PreconditionedSGD": 1.18, "AdaptiveSGD": 1.10, "OnlyAdaptiveSGD": 1.07},
    "fmnist_2c2d": {"PreconditionedSGD": 1.12, "AdaptiveSGD": 1.10, "OnlyAdaptiveSGD": 1.08},
}
Epoch = Callable[[], float]


def training(problem: Any, samples: Any, make: Callable[..., Any], steps: int, seed: int) -> Epoch:
    """A function that trains for one epoch and returns its seconds, data selection excluded."""
    torch.manual_seed(seed)
    model: nn.Module = problem.make_model()
    opt = make(model.parameters())
    generator = torch.Generator().manual_seed(seed)

    def epoch() -> float:
        seconds = 0.0
        order = torch.randperm(len(samples), generator=generator)
        for t in range(steps):
            x, y = samples.select(order[t * problem.batch_size : (t + 1) * problem.batch_size])
            started = time.perf_counter()
            opt.zero_grad()
            loss = problem.loss(model(x), y).mean()
            (opt.backward if hasattr(opt, "backward") else torch.Tensor.backward)(loss)
            opt.step()
            seconds += time.perf_counter() - started
        return seconds

    epoch.optimizer = opt  # type: ignore[attr-defined]
    return epoch


def product_cost(problem: Any, samples: Any, repeats: int = 15) -> float:
    """Median seconds of a gradient with one exact product over those of a gradient, less 1."""
    model: nn.Module = problem.make_model()
    parameters = list(model.parameters())
    x, y = samples.select(torch.arange(problem.batch_size))
    plain, both = [], []
    for _ in range(repeats):
        for times, product in ((plain, False), (both, True)):
            started = time.perf_counter()
            loss = problem.loss(model(x), y).mean()
            grads = torch.autograd.grad(loss, parameters, create_graph=product)
            if product:
                torch.autograd.grad(grads, parameters, [g.detach() for g in grads])
            times.append(time.perf_counter() - started)
    return statistics.median(both) / statistics.median(plain) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problem", default="mnist_mlp", choices=sorted(BARS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="steps of an epoch; default: the problem's")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    problem = problems.get(args.problem)
    samples = problem.data(None).train
    steps = args.steps or len(samples) // problem.batch_size
    makes: dict[str, Callable[..., Any]] = {
        "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
        "PreconditionedSGD": lambda p: PreconditionedSGD(p, estimate_every=steps),
        "AdaptiveSGD": lambda p: AdaptiveSGD(p, estimate_every=steps),
        "OnlyAdaptiveSGD": lambda p: OnlyAdaptiveSGD(p, estimate_every=steps),
    }
    runs = {n: training(problem, samples, m, steps, 1) for n, m in makes.items()}
    ratios: dict[str, list[float]] = {name: [] for name in runs if name != "SGD"}
    sgd_seconds = []
    for turn in range(args.rounds + 1):
        names = list(runs) if turn % 2 else list(reversed(runs))
        seconds = {name: runs[name]() for name in names}
        if turn:
            sgd_seconds.append(seconds["SGD"])
            for name, values in ratios.items():
                values.append(seconds[name] / seconds["SGD"])
    cost = product_cost(problem, samples)
    rows = {}
    for name, values in ratios.items():
        log = runs[name].optimizer.get_log()  # type: ignore[attr-defined]
        products = log["hessian_products"] / (args.rounds + 1)
        rows[name] = {
            "ratio": round(statistics.median(values), 4),
            "range": [round(min(values), 4), round(max(values), 4)],
            "bar": BARS[args.problem][name],
            "products_per_epoch": products,
            "gradient_equivalents": round(1 + products * cost / steps, 4),
        }
        print(f"{name:18} {rows[name]['ratio']:.3f}  bar {rows[name]['bar']}  {rows[name]}")
    result = {
        "problem": args.problem,
        "steps": steps,
        "rounds": args.rounds,
        "sgd_seconds_per_epoch": round(statistics.median(sgd_seconds), 3),
        "product_in_gradients": round(cost, 3),
        "optimizers": rows,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": args.threads,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
