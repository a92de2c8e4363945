"""Products, and seconds against SciPy's eigsh over the same product, in one process.

Bars: a product with graphs kept costs at most 2.0 gradients; the top ten of digits_mlp after three
epochs take at most 20 (30) products at a tolerance of 1e-2 (1e-4) before verification and at most
twice that with it; seconds before verification are at most 1.1 of eigsh's.

    python benchmarks/curvature_cost.py [--problem digits_mlp] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from optiscope import problems
from optiscope.curvature import top_eigenpairs
from optiscope.problems.risk import risk_of


def trained(name: str, epochs: int) -> torch.nn.Module:
    problem = problems.get(name)
    torch.manual_seed(0)
    model = problem.make_model()
    samples = problem.data(None).train
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for indices in torch.randperm(len(samples)).split(32):
            optimizer.zero_grad()
            problem.losses(model, samples.select(indices)).mean().backward()
            optimizer.step()
    return model


def seconds_of(call, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--problem", default="digits_mlp")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=400)
    options = parser.parse_args()
    risk = risk_of(
        problems.get(options.problem),
        "train",
        trained(options.problem, 3),
        batch_size=options.batch_size,
    )
    operator = risk.hessian()
    v = torch.randn(risk.size)
    _ = operator @ v
    gradient = seconds_of(risk.gradient, 10 * options.repeats)
    product = seconds_of(lambda: operator @ v, 10 * options.repeats)
    print(json.dumps({"problem": options.problem, "product_in_gradients": product / gradient}))
    for tolerance in (1e-2, 1e-4):
        rows = []
        for seed in range(options.repeats):
            counted = [0]

            def multiply(x: np.ndarray, counted: list[int] = counted) -> np.ndarray:
                counted[0] += 1
                flat = np.ascontiguousarray(x, dtype=np.float32).ravel()
                return (operator @ torch.from_numpy(flat)).numpy()

            start = np.random.default_rng(seed).standard_normal(risk.size).astype(np.float32)
            ours = seconds_of(
                lambda seed=seed, tolerance=tolerance: top_eigenpairs(
                    operator, 10, tol=tolerance, seed=seed, verify=False
                ),
                1,
            )
            matrix = LinearOperator((risk.size,) * 2, matvec=multiply, dtype=np.float32)
            theirs = seconds_of(
                lambda matrix=matrix, start=start, tolerance=tolerance: eigsh(
                    matrix, k=10, which="LA", tol=tolerance, v0=start
                ),
                1,
            )
            pairs = top_eigenpairs(operator, 10, tol=tolerance, seed=seed)
            rows.append((pairs.search_products, pairs.cost.products, counted[0], ours / theirs))
        print(
            json.dumps(
                {
                    "tolerance": tolerance,
                    "products_before_verification": [r[0] for r in rows],
                    "products": [r[1] for r in rows],
                    "products_of_eigsh": [r[2] for r in rows],
                    "seconds_over_eigsh": statistics.median(r[3] for r in rows),
                }
            )
        )


if __name__ == "__main__":
    main()
