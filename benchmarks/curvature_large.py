"""Top ten eigenvalues of a network of 1.3 million parameters, beside SciPy's eigsh.

784-1000-500-10 on MNIST's first samples, after some steps of SGD. Measured in one process over the
same product (one operator, its graphs kept): products and seconds until the residuals are within
the tolerance, of `top_eigenpairs` and of `scipy.sparse.linalg.eigsh`; then the whole call with its
verification, and the most memory that vectors took with and without a bound.

    python benchmarks/curvature_large.py [--samples 10000] [--tol 1e-3] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from optiscope import EmpiricalRisk
from optiscope.curvature import top_eigenpairs
from optiscope.curvature.eigenpairs import Progress
from optiscope.problems import get


def trained(inputs: torch.Tensor, targets: torch.Tensor, steps: int) -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 1000), torch.nn.ReLU(), torch.nn.Linear(1000, 500), torch.nn.ReLU(),
        torch.nn.Linear(500, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        chosen = torch.randint(len(inputs), (64,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[chosen]), targets[chosen]).backward()
        optimizer.step()
    return model


def show(progress: Progress) -> None:
    stage = "verifying" if progress.verifying else "searching"
    done = f"{progress.products} products, {progress.converged} of {progress.wanted}, {stage}"
    print(f"\r{done:60}", end="", file=sys.stderr, flush=True)


def written(found: dict[str, object], path: Path | None) -> None:
    """Write what is known by now."""
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=1000)
    parser.add_argument("--tol", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--verify", action="store_true", help="time the whole call as well")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    samples = get("mnist_mlp").data(None).train.select(torch.arange(options.samples))
    inputs, targets = samples[0].flatten(1), samples[1]
    model = trained(inputs, targets, options.steps)
    size = options.batch_size
    batches = list(zip(inputs.split(size), targets.split(size), strict=True))
    risk = EmpiricalRisk(model, torch.nn.CrossEntropyLoss(), batches, check_deterministic=False)
    operator = risk.hessian()
    begun = time.perf_counter()
    risk.gradient()
    gradient = time.perf_counter() - begun
    v = torch.randn(risk.size, generator=torch.Generator().manual_seed(1))
    _ = operator @ v  # builds the graphs
    begun = time.perf_counter()
    _ = operator @ v
    product = time.perf_counter() - begun
    counted = [0]

    def multiply(x: np.ndarray) -> np.ndarray:
        counted[0] += 1
        flat = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32).ravel())
        return (operator @ flat).numpy()

    matrix = LinearOperator((risk.size,) * 2, matvec=multiply, dtype=np.float32)
    rows = []
    for seed in range(options.repeats):
        begun = time.perf_counter()
        ours = top_eigenpairs(operator, 10, tol=options.tol, seed=seed, verify=False, progress=show)
        own_seconds = time.perf_counter() - begun
        counted[0] = 0
        start = np.random.default_rng(seed).standard_normal(risk.size).astype(np.float32)
        begun = time.perf_counter()
        theirs = np.sort(
            eigsh(matrix, k=10, which="LA", tol=options.tol, v0=start, return_eigenvectors=True)[0]
        )[::-1]
        their_seconds = time.perf_counter() - begun
        worst = float(np.abs(ours.values.numpy() - theirs).max() / theirs[0])
        rows.append(
            {
                "products": int(ours.cost.products),
                "seconds": own_seconds,
                "eigsh_products": counted[0],
                "eigsh_seconds": their_seconds,
                "ratio": own_seconds / their_seconds,
                "largest_difference": worst,
            }
        )
    found = {
        "parameters": risk.size,
        "samples": options.samples,
        "tolerance": options.tol,
        "threads": torch.get_num_threads(),
        "gradient_seconds": gradient,
        "product_in_gradients": product / gradient,
        "search": rows,
    }
    written(found, options.out)
    if options.verify:
        pairs = top_eigenpairs(operator, 10, tol=options.tol, keep_vectors=False, progress=show)
        found["with_verification"] = {
            "values": pairs.values.tolist(),
            "data_errors": None if pairs.data_errors is None else pairs.data_errors.tolist(),
            "converged": bool(pairs.converged.all()),
            "products": pairs.cost.products,
            "gradients": pairs.cost.gradient_equivalents,
            "measured_gradients": pairs.cost.seconds / gradient,
            "seconds": pairs.cost.seconds,
            "vectors_in_memory": pairs.cost.products,
            "bytes_of_vectors": 4 * risk.size * 16 * math.ceil(pairs.cost.products / 16),
        }
        written(found, options.out)
    print(file=sys.stderr)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
