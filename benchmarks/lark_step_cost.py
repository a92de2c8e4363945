"""What a training step with Lark costs, relative to SGD with momentum.

For each network, one copy per optimizer takes steps in turn on the same random batches, on a fixed
number of threads; a step is the gradients' clearing, forward and backward pass and the update. The
ratio is the median over steps of an optimizer's seconds by those of SGD's step beside it, with the
quartiles; ``whole`` is the ratio of the sums, in which the dearer steps with statistics count in
full. Memory and layout are as in every process of the package that trains. ``zero columns`` is the
cost of keeping dead inputs at zero: whitening a 1000 x 784 matrix whose border of two pixels is
zero, by whitening one without zeros, in turn. Warm-up is excluded, and
rounds are whole multiples of Lark's renewal period. Run with
``python benchmarks/lark_step_cost.py [--json FILE]`` on a machine that does nothing else.

Index legend: B samples in a batch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from optiscope import problems
from optiscope.optim.lark.factors import FactorPowers, precondition_
from optiscope.optim.lark.optimizer import Lark
from optiscope.train.device import in_fast_layout, prepare_process

INPUTS = {
    "mnist_mlp": (1, 28, 28),
    "fmnist_2c2d": (1, 28, 28),
    "cifar10_3c3d": (3, 32, 32),
}
RANK = 32  # pairs kept of each factor
PERIOD = 10  # steps between Lark's renewals
OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "momentum": lambda p: SGD(p, lr=0.01, momentum=0.9, foreach=True),
    "adamw": lambda p: AdamW(p, lr=1e-3, foreach=True),
    "lark": lambda p: Lark(p, total_steps=1_000_000),
}


def measure(name: str, batch: int, rounds: int) -> dict[str, Any]:
    """Seconds of each optimizer's steps on one network, and their ratios to momentum's."""
    problem = problems.get(name)
    pairs: dict[str, tuple[nn.Module, Optimizer]] = {}
    for key, make in OPTIMIZERS.items():
        torch.manual_seed(0)
        model = problem.make_model()
        pairs[key] = (model, make(model.parameters()))
    seconds: dict[str, list[float]] = {key: [] for key in pairs}
    generator = torch.Generator().manual_seed(1)
    for step in range((rounds + 1) * PERIOD):
        x = in_fast_layout(torch.randn(batch, *INPUTS[name], generator=generator))
        y = torch.randint(10, (batch,), generator=generator)
        for key, (model, optimizer) in pairs.items():
            begin = time.perf_counter()
            optimizer.zero_grad()
            problem.loss(model(x), y).mean().backward()
            optimizer.step()
            if step >= PERIOD:
                seconds[key].append(time.perf_counter() - begin)
    return {
        "problem": name,
        "batch": batch,
        "steps": rounds * PERIOD,
        "median_seconds": {key: statistics.median(taken) for key, taken in seconds.items()},
        "ratio_to_momentum": {key: ratios(seconds[key], seconds["momentum"]) for key in pairs},
        "ratio_of_sums": {key: sum(seconds[key]) / sum(seconds["momentum"]) for key in pairs},
    }


def measure_zero_columns(rounds: int) -> dict[str, Any]:
    """Seconds of whitening a layer on images with a dead border, and without one."""
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(1000, 784, generator=generator)
    dead = torch.ones(28, 28, dtype=torch.bool)
    dead[2:-2, 2:-2] = False
    bordered = dense.masked_fill(dead.flatten(), 0.0)
    left = torch.linalg.qr(torch.randn(1000, RANK, generator=generator)).Q
    right = torch.randn(784, RANK, generator=generator).masked_fill(dead.flatten()[:, None], 0.0)
    gains = torch.rand(RANK, generator=generator) - 1
    by = FactorPowers(left, gains, torch.linalg.qr(right).Q, gains)
    seconds: dict[str, list[float]] = {"dense": [], "bordered": []}
    for step in range(rounds * PERIOD + PERIOD):
        for key, matrix in (("dense", dense.clone()), ("bordered", bordered.clone())):
            begin = time.perf_counter()
            precondition_(matrix, by)
            if step >= PERIOD:
                seconds[key].append(time.perf_counter() - begin)
    return {
        "dead_columns": int(dead.sum()),
        "rank": RANK,
        "median_seconds": {key: statistics.median(taken) for key, taken in seconds.items()},
        "ratio_to_dense": ratios(seconds["bordered"], seconds["dense"]),
    }


def ratios(taken: list[float], base: list[float]) -> dict[str, float]:
    """Median and quartiles of a step's seconds by those of the step beside it."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(taken, base, strict=True)], n=4)
    return {"median": middle, "low": low, "high": high}


def machine() -> dict[str, Any]:
    """Where it was measured."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--problems", nargs="+", default=list(INPUTS), choices=list(INPUTS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10, help=f"of {PERIOD} steps each")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    prepare_process()
    torch.set_num_threads(given.threads)
    result: dict[str, Any] = {"machine": machine(), "networks": []}
    for name in given.problems:
        row = measure(name, given.batch, given.rounds)
        result["networks"].append(row)
        for key, ratio in row["ratio_to_momentum"].items():
            print(
                f"{name:14} {key:9} {row['median_seconds'][key] * 1e3:7.1f} ms, "
                f"{ratio['median']:.2f} of momentum ({ratio['low']:.2f} to {ratio['high']:.2f}), "
                f"whole {row['ratio_of_sums'][key]:.2f}",
                flush=True,
            )
    zeros = result["zero_columns"] = measure_zero_columns(given.rounds)
    ratio, taken = zeros["ratio_to_dense"], zeros["median_seconds"]
    print(
        f"zero columns   {taken['bordered'] * 1e3:7.2f} ms, {ratio['median']:.2f} of dense "
        f"({ratio['low']:.2f} to {ratio['high']:.2f})"
    )
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
