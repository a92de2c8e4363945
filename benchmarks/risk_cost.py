"""What an evaluation through `EmpiricalRisk` costs beside the evaluations that know their model.

The risk evaluates any model at any parameters, leaves no trace and is guarded against random
layers. Training evaluates the model it has, at the weights it has, thousands of times; a figure of
a loss's ground needs tens of thousands of points of two parameters. All of them add up their
batches with ``objective/sample_sums.py``; this shows why they do not share the walk as well. Each
is timed in turn with the risk on the same samples, and their results are compared.

Run with ``python benchmarks/risk_cost.py [--json FILE]`` on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optiscope import problems
from optiscope.problems.problem import Problem
from optiscope.problems.risk import risk_of
from optiscope.problems.textbook.loss_grid import loss_grid
from optiscope.train.environment import environment
from optiscope.train.evaluation import evaluate

CPU = torch.device("cpu")
POINTS = 24  # of a grid's axis: the figures of `optiscope show` have 160


def seconds_of(act: Callable[[], object], rounds: int) -> float:
    """Median over rounds, after one to warm up."""
    taken = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def compare_evaluation(problem: Problem, rounds: int) -> dict[str, Any]:
    """`train.evaluation` and the risk on a problem's validation samples."""
    torch.manual_seed(0)
    model = problem.make_model()
    samples = problem.data(None).valid
    risk = risk_of(problem, "valid", model, check_deterministic=False)
    ours = seconds_of(lambda: evaluate(problem, model, samples, CPU), rounds)
    by_risk = seconds_of(risk.evaluate, rounds)
    a, b = evaluate(problem, model, samples, CPU)["loss"], risk.evaluate()["loss"]
    return row(f"evaluation of {problem.name}", ours, by_risk, abs(a - b) / abs(a))


def compare_grid(problem: Problem, rounds: int) -> dict[str, Any]:
    """`loss_grid` and the risk at every point of a grid."""
    axis = np.linspace(-1.0, 1.0, POINTS)
    model = problem.make_model().double()
    risk = risk_of(problem, "train_eval", model, check_deterministic=False)
    points = torch.cartesian_prod(torch.from_numpy(axis), torch.from_numpy(axis)).flip(1)
    grid = loss_grid(problem, axis, axis)

    def by_risk() -> np.ndarray[Any, Any]:
        return np.array([float(risk.value(point)) for point in points]).reshape(POINTS, POINTS)

    apart = np.abs(by_risk() - grid).max() / np.abs(grid).max()
    ours = seconds_of(lambda: loss_grid(problem, axis, axis), rounds)
    return row(
        f"{POINTS} x {POINTS} points of {problem.name}",
        ours,
        seconds_of(by_risk, max(1, rounds // 4)),
        float(apart),
    )


def row(what: str, ours: float, by_risk: float, apart: float) -> dict[str, Any]:
    """Seconds of both, and the relative difference of their results."""
    return {
        "what": what,
        "seconds": ours,
        "seconds_by_risk": by_risk,
        "ratio": by_risk / ours,
        "relative_difference": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="time evaluations by the risk and without it")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="where to write the result")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [compare_evaluation(problems.get(n), asked.rounds) for n in ("digits_mlp", "mnist_mlp")]
    rows += [compare_grid(problems.get(n), asked.rounds) for n in ("two_d_rosenbrock",)]
    for r in rows:
        print(
            f"{r['what']:36} {r['seconds'] * 1e3:9.2f} ms, by the risk "
            f"{r['seconds_by_risk'] * 1e3:9.2f} ms ({r['ratio']:.1f} times), "
            f"relative difference {r['relative_difference']:.1e}"
        )
    if asked.json:
        content = {"environment": environment(CPU), "rounds": asked.rounds, "rows": rows}
        asked.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
