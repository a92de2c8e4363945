"""Convex problems: gradient-equivalents the preconditioner needs for tuned SGD's training loss.

SGD is tuned over rates a factor of 10^(1/4) apart for its own horizon, with the same annealing
(full batch: none; mini-batch: linear decay to zero). The preconditioner has one setting for all
problems and a quarter of the horizon. A gradient counts 1, a Hessian product (a difference of two
gradients) 1. Run: python benchmarks/preconditioner_convex.py --out convex.json
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optiscope import problems
from optiscope.optim.preconditioner.variants import PreconditionedSGD

SETTINGS: dict[str, Any] = {
    "est_rank": 5,
    "num_observations": 8,
    "prior_iterations": 1,
    "power_iterations": 3,
    "momentum": 0.9,
    "nesterov": True,
    "hessian": "difference",
}
L2 = 1e-3  # of the logistic regressions: without it the digits are separable, and any rate is good


@dataclass(frozen=True)
class Convex:
    """A convex training problem held as two tensors."""

    inputs: Tensor
    targets: Tensor
    outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]
    l2: float
    bias: bool = True

    def objective(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss plus l2 / 2 times the squared weights."""
        squares = torch.stack([p.square().sum() for p in model.parameters()]).sum()
        return self.loss(model(x), y) + 0.5 * self.l2 * squares


@dataclass(frozen=True)
class Case:
    """A problem, a batch size (None: all samples), and SGD's horizon in steps."""

    problem: str
    batch: int | None
    steps: int


CASES = [
    Case("digits", None, 1000),
    Case("digits", 32, 1120),
    Case("mnist_logreg", None, 400),
    Case("mnist_logreg", 128, 3900),
    Case("least_squares", None, 400),
    Case("least_squares", 32, 5560),
]


def least_squares(n: int = 44_484, raw: int = 21, seed: int = 0) -> Convex:
    """Noisy least squares on the 253 quadratic features of 21 inputs, seen through a bad map.

    The shape is the paper's; its data set is not at hand.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, raw, generator=generator)
    i, j = torch.triu_indices(raw, raw)
    features = torch.cat([torch.ones(n, 1), z, z[:, i] * z[:, j]], dim=1)
    d = features.shape[1]
    left, right = (torch.linalg.qr(torch.randn(d, d, generator=generator))[0] for _ in range(2))
    features = features @ (left * torch.logspace(0, -1.5, d)) @ right
    features = features / features.std()
    signal = features @ torch.randn(d, 1, generator=generator)
    targets = signal / signal.std() + 0.5 * torch.randn(n, 1, generator=generator)
    return Convex(features, targets, 1, lambda o, y: 0.5 * (o - y).square().mean(), 0.0, False)


def make(name: str) -> Convex:
    """The problem of that name."""
    if name == "least_squares":
        return least_squares()
    if name == "digits":
        from sklearn.datasets import load_digits

        data = load_digits()
        inputs = torch.tensor(data.data, dtype=torch.float32) / 16
        return Convex(inputs, torch.tensor(data.target), 10, functional.cross_entropy, L2)
    train = problems.get(name).data(None).train
    batch = train.select(torch.arange(len(train)))
    return Convex(batch.inputs.flatten(1), batch.targets, 10, functional.cross_entropy, L2)


def train(
    problem: Convex, case: Case, steps: int, optimizer: Callable[..., Any], seed: int, every: int
) -> list[tuple[int, float, float]]:
    """Gradient-equivalents, seconds of training and training loss, every so many steps."""
    model = nn.Linear(problem.inputs.shape[1], problem.outputs, bias=problem.bias)
    for p in model.parameters():
        nn.init.zeros_(p)
    opt = optimizer(model.parameters())
    decay = torch.optim.lr_scheduler.LambdaLR(
        opt, lambda t: 1.0 if case.batch is None else max(1 - t / steps, 0.0)
    )
    generator = torch.Generator().manual_seed(seed)
    calls, seconds, curve = 0, 0.0, []
    for t in range(1, steps + 1):
        x, y = problem.inputs, problem.targets
        if case.batch is not None:
            rows = torch.randint(len(x), (case.batch,), generator=generator)
            x, y = x[rows], y[rows]

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            nonlocal calls
            calls += 1
            opt.zero_grad()
            loss = problem.objective(model, x, y)
            loss.backward()
            return loss

        started = time.perf_counter()
        opt.step(closure)
        decay.step()
        seconds += time.perf_counter() - started
        if t % every == 0 or t == steps:
            with torch.no_grad():
                value = float(problem.objective(model, problem.inputs, problem.targets))
            curve.append((calls, seconds, value))
            if not math.isfinite(value):
                break
    return curve


def optimum(problem: Convex) -> float:
    """Least training objective, by L-BFGS on all samples."""
    model = nn.Linear(problem.inputs.shape[1], problem.outputs, bias=problem.bias)
    solver = torch.optim.LBFGS(model.parameters(), max_iter=100, history_size=20)

    def closure() -> Tensor:
        solver.zero_grad()
        loss = problem.objective(model, problem.inputs, problem.targets)
        loss.backward()
        return loss

    for _ in range(3):
        solver.step(closure)
    return float(closure().detach())


def noise_limit(problem: Convex, samples: int, rows: int = 10_000, probes: int = 2_000) -> float:
    """Least expected excess loss of any unbiased method that draws so many samples.

    tr(H^-1 C) / (2 samples), with the Hessian H and the covariance C of a sample's gradient at the
    optimum (the Cramer-Rao bound of stochastic approximation); H from at most ``rows`` samples, C
    from ``probes``.
    """
    x, y = problem.inputs[:rows].double(), problem.targets[:rows]
    if problem.outputs == 1:
        weights = torch.linalg.lstsq(x, y.double()).solution
        residual = (x @ weights - y).flatten()
        return float(residual.square().mean()) * x.shape[1] / (2 * samples)
    model = nn.Linear(problem.inputs.shape[1], problem.outputs).double()
    solver = torch.optim.LBFGS(model.parameters(), max_iter=300, tolerance_grad=1e-8)

    def closure() -> Tensor:
        solver.zero_grad()
        loss = problem.objective(model, x, y)
        loss.backward()
        return loss

    solver.step(closure)
    with torch.no_grad():
        p = model(x).softmax(dim=1)
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
        d, k = x.shape[1], problem.outputs
        hessian = problem.l2 * torch.eye(k * d, dtype=x.dtype)
        for i in range(k):
            for j in range(k):
                weight = p[:, i] * (float(i == j) - p[:, j]) / len(x)
                hessian[i * d : (i + 1) * d, j * d : (j + 1) * d] += x.mT @ (x * weight[:, None])
        error = p[:probes] - functional.one_hot(y[:probes], k)
        gradients = (error.unsqueeze(2) * x[:probes].unsqueeze(1)).flatten(1)
        gradients = gradients - gradients.mean(dim=0)
        solved = torch.cholesky_solve(gradients.mT, torch.linalg.cholesky(hessian))
        return float((gradients.mT * solved).sum()) / len(gradients) / (2 * samples)


def tuned_sgd(problem: Convex, case: Case, seed: int) -> dict[str, Any]:
    """SGD at the best of a grid of rates, refined at an edge until the best is inside."""
    results: dict[int, tuple[int, float, float]] = {}

    def final(exponent: int) -> float:
        if exponent not in results:
            rate = 10 ** (exponent / 4)
            sgd = lambda p: torch.optim.SGD(p, lr=rate)  # noqa: E731
            results[exponent] = train(problem, case, case.steps, sgd, seed, case.steps)[-1]
        value = results[exponent][2]
        return value if math.isfinite(value) else math.inf

    best = 0
    while True:
        around = [best - 1, best, best + 1]
        winner = min(around, key=final)
        if winner == best:
            break
        best = winner
    calls, seconds, loss = results[best]
    return {"rate": 10 ** (best / 4), "gradients": calls, "seconds": seconds, "loss": loss}


def compare(case: Case, seed: int) -> dict[str, Any]:
    """One row: tuned SGD against the preconditioner in a quarter of its gradient-equivalents."""
    problem = make(case.problem)
    sgd = tuned_sgd(problem, case, seed)
    quarter = case.steps // 4
    estimation = ("num_observations", "prior_iterations", "power_iterations")
    overhead = sum(SETTINGS[name] for name in estimation) + 8
    ours = train(
        problem,
        case,
        quarter - overhead,
        lambda p: PreconditionedSGD(p, **SETTINGS),
        seed,
        max(1, quarter // 50),
    )
    reached = next(((c, s) for c, s, loss in ours if loss <= sgd["loss"]), None)
    limit = None if case.batch is None else noise_limit(problem, quarter * case.batch)
    return {
        "problem": case.problem,
        "batch": case.batch or "all",
        "sgd": sgd,
        "preconditioned": {
            "gradient_equivalents": ours[-1][0],
            "seconds": ours[-1][1],
            "loss": ours[-1][2],
        },
        "optimum": optimum(problem),
        "least_excess_in_a_quarter": limit,
        "reached_at": None if reached is None else reached[0],
        "share": None if reached is None else reached[0] / sgd["gradients"],
        "seconds_share": None if reached is None else reached[1] / sgd["seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="a problem's name")
    parser.add_argument("--momentum", type=float, help="of the inner SGD")
    args = parser.parse_args()
    if args.momentum is not None:
        SETTINGS.update(momentum=args.momentum, nesterov=args.momentum > 0)
    rows = []
    for case in CASES:
        if args.only in (None, case.problem):
            rows.append(compare(case, args.seed))
            print(json.dumps(rows[-1]), flush=True)
    if args.out:
        args.out.write_text(json.dumps({"settings": SETTINGS, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
