"""What the training loop costs over a bare PyTorch loop.

`mnist_mlp`, batch 128, SGD: optiscope's loop and a loop of a dozen lines train the same network on
the same tensors, in turn, and so do their evaluations. Ratios are of steps (or passes) per second,
optiscope's over the bare loop's, each from two runs that follow one another; the median over rounds
is reported with its quartiles. Processor time is shown beside wall time because it does not count
what other processes take. The bar is a ratio of 0.97.

Run with ``python benchmarks/loop_overhead.py``. The images are MNIST's where they are found
(OPTISCOPE_DATA_DIR), else random ones of the same shape.

Index legend: N samples, B samples in a batch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from optiscope import problems
from optiscope.data import MissingData, Splits, TensorSamples
from optiscope.optim import registry
from optiscope.problems import Problem
from optiscope.records import Trial
from optiscope.train.environment import environment
from optiscope.train.evaluation import EVALUATION_BATCH, evaluate
from optiscope.train.loop import Training

CPU = torch.device("cpu")
RATE = 0.01
SIZES = {"train": 40_000, "train_eval": 10_000, "valid": 10_000, "test": 10_000}


@dataclass(frozen=True)
class Comparison:
    """Seconds of both in each round, and the ratio of their speeds.

    Attributes:
        what: what was timed.
        count: steps, or passes over the evaluation set, in each run.
        ours, bare: median per second of wall time.
        wall, processor: quartiles of the ratio of speeds, ours over the bare loop's.
    """

    what: str
    count: int
    ours: float
    bare: float
    wall: tuple[float, float, float]
    processor: tuple[float, float, float]

    def __str__(self) -> str:
        low, middle, high = self.wall
        _, processor, _ = self.processor
        return (
            f"{self.what}: {self.ours:.1f} per second against {self.bare:.1f}, "
            f"ratio {middle:.4f} (quartiles {low:.4f} to {high:.4f}; "
            f"by processor time {processor:.4f})"
        )


def splits_of(problem: Problem) -> tuple[Splits, str]:
    """The problem's data, or random tensors of their shape, and which of the two."""
    try:
        return problem.data(None), "MNIST"
    except MissingData:
        generator = torch.Generator().manual_seed(0)
        made = {
            name: TensorSamples(
                torch.rand(count, 1, 28, 28, generator=generator),
                torch.randint(10, (count,), generator=generator),
            )
            for name, count in SIZES.items()
        }
        return Splits(**made), "random images of MNIST's shape"


class BareLoop:
    """What anyone would write."""

    def __init__(self, problem: Problem, splits: Splits) -> None:
        assert isinstance(splits.train, TensorSamples)
        self.model = problem.make_model()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.inputs, self.targets = splits.train.inputs, splits.train.targets
        self.batch_size = problem.batch_size

    def train(self, steps: int) -> None:
        order = torch.randperm(len(self.inputs))[: steps * self.batch_size]
        for batch in order.split(self.batch_size):
            inputs, targets = self.inputs[batch], self.targets[batch]
            self.optimizer.zero_grad()
            loss = functional.cross_entropy(self.model(inputs), targets)
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """Mean loss and accuracy over inputs [N, ...] and targets [N]."""
        self.model.eval()
        loss = hits = 0.0
        for x, y in zip(
            inputs.split(EVALUATION_BATCH), targets.split(EVALUATION_BATCH), strict=True
        ):
            outputs = self.model(x)
            loss += functional.cross_entropy(outputs, y, reduction="sum").item()
            hits += (outputs.argmax(1) == y).sum().item()
        self.model.train()
        return loss / len(inputs), hits / len(inputs)


Seconds = tuple[float, float]
"""Wall and processor seconds."""


def time_of(act: Callable[[], object]) -> Seconds:
    wall, processor = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - processor


def compare(
    what: str, count: int, rounds: int, ours: Callable[[], object], bare: Callable[[], object]
) -> Comparison:
    """Time both in turn; who begins alternates, and a first round warms up."""
    times: list[tuple[Seconds, Seconds]] = []
    for i in range(rounds + 1):
        if i % 2:
            first, second = time_of(ours), time_of(bare)
            times.append((first, second))
        else:
            first, second = time_of(bare), time_of(ours)
            times.append((second, first))
    times = times[1:]

    def ratios(clock: int) -> tuple[float, float, float]:
        low, middle, high = statistics.quantiles([b[clock] / o[clock] for o, b in times], n=4)
        return low, middle, high

    return Comparison(
        what,
        count,
        count / statistics.median(o[0] for o, _ in times),
        count / statistics.median(b[0] for _, b in times),
        ratios(0),
        ratios(1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="time the training loop against a bare one")
    parser.add_argument("--problem", default="mnist_mlp", help="a classifier of images")
    parser.add_argument("--rounds", type=int, default=21, help="pairs to take medians of")
    parser.add_argument("--steps", type=int, default=150, help="training steps in each run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()

    torch.set_num_threads(asked.threads)
    problem = problems.get(asked.problem)
    splits, data = splits_of(problem)
    bound = registry.bind("sgd", {"lr": RATE})
    trial = Trial(
        problem=problem.name,
        problem_version=problem.version,
        optimizer="sgd",
        hyperparameters=bound.hyperparameters,
        seed=0,
        epochs=problem.epochs,
        batch_size=problem.batch_size,
        threads=asked.threads,
    )
    training = Training(trial, problem, bound, splits, CPU)
    loop = BareLoop(replace(problem, batch_size=trial.batch_size), splits)
    steps = min(asked.steps, training.steps_per_epoch)
    test = splits.test
    assert isinstance(test, TensorSamples)
    found = [
        compare(
            f"training steps of {problem.batch_size}",
            steps,
            asked.rounds,
            lambda: training.train_epoch(steps),
            lambda: loop.train(steps),
        ),
        compare(
            f"evaluations of {len(test):,} samples",
            1,
            asked.rounds,
            lambda: evaluate(problem, training.model, test, CPU),
            lambda: loop.evaluate(test.inputs, test.targets),
        ),
    ]
    where = environment(CPU)
    busy = os.getloadavg()[0]
    if asked.json:
        content = {"problem": problem.name, "data": data, "rounds": asked.rounds}
        content |= {"load": busy, "environment": where}
        print(json.dumps(content | {"comparisons": [asdict(c) for c in found]}, indent=1))
        return
    print(f"{problem.name} on {data}, {asked.rounds} rounds")
    for comparison in found:
        print(comparison)
    print(
        f"torch {where['packages']['torch']}, {asked.threads} threads, {where['cores']} cores of "
        f"{where['processor']}, load {busy:.1f}"
    )


if __name__ == "__main__":
    main()
