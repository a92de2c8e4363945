"""How often a density's 95 % bars hold the dense density, and how wide they are.

Bars are t-intervals over the probes plus a multiple of the Krylov error; `half_width` takes the
multiple two. Widths are shares of the range; points count where the dense density exceeds 1e-3
of its maximum.

    python benchmarks/density_coverage.py [--seeds 6] [--out records/density_coverage.json]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from scipy import stats
from torch import Tensor, nn

from optiscope.curvature import spectral_density, top_eigenpairs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "curvature"))
from networks import dense, risk_of_network

PROBES = 10
FACTORS = (0.0, 1.0, 2.0, 3.0)
CASES = [  # width, steps, pairs deflated
    (0.01, 20, 0), (0.01, 40, 0), (0.003, 20, 0), (0.003, 40, 0), (0.003, 80, 0),
    (0.001, 20, 0), (0.001, 40, 0), (0.01, 20, 12), (0.003, 20, 12), (0.003, 40, 12),
]  # fmt: skip


def smooth(values: Tensor, grid: Tensor, width: float, count: int) -> Tensor:
    bumps = torch.exp(-((grid[:, None] - values) ** 2) / (2 * width**2))
    return bumps.sum(1) / (width * math.sqrt(2 * math.pi)) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    matrices = {
        "tanh 32-10-10": dense(risk_of_network(sizes=(32, 10, 10), batches=(20, 20, 20)).hessian()),
        "relu 16-12-10": dense(risk_of_network(nn.ReLU, sizes=(16, 12, 10)).hessian()),
    }
    reach = float(stats.t.ppf(0.975, PROBES - 1))
    rows = []
    for name, matrix in matrices.items():
        values = torch.linalg.eigvalsh(matrix)
        for share, steps, deflated in CASES:
            width = share * float(values[-1] - values[0])
            pairs = top_eigenpairs(matrix, k=deflated, tol=1e-8) if deflated else None
            covered = dict.fromkeys(FACTORS, 0.0)
            half_widths = dict(covered)
            for seed in range(arguments.seeds):
                found = spectral_density(
                    matrix, probes=PROBES, steps=steps, width=width, seed=seed, deflate=pairs,
                    points=600,
                )  # fmt: skip
                rest = values[: len(values) - deflated]
                right = smooth(rest, found.grid, width, len(values))
                matters = right > 1e-3 * right.max()
                error = (found.density - right).abs()
                for factor in FACTORS:
                    bars = reach * found.monte_carlo + factor * found.krylov
                    covered[factor] += float((error <= bars)[matters].double().mean())
                    half_widths[factor] += float((bars[matters] / right.max()).mean())
            rows.append({
                "network": name, "width": share, "steps": steps, "deflated": deflated,
                "covered": {f"{k:g}": round(v / arguments.seeds, 4) for k, v in covered.items()},
                "half_width": {
                    f"{k:g}": round(v / arguments.seeds, 4) for k, v in half_widths.items()
                },
            })  # fmt: skip
            print(json.dumps(rows[-1]))
    if arguments.out is not None:
        record = {"probes": PROBES, "seeds": arguments.seeds, "rows": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
