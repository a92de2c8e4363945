"""May the variance over seeds be pooled over the algorithms of a problem?

A two-way analysis of variance (algorithms times seeds, one residual variance for all) would decide
with fewer seeds. It needs algorithms whose results scatter alike. Printed here: how differently the
algorithms of committed studies scatter, and what the pooled test errs where they do so.

    python benchmarks/pooled_variance.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from optiscope.records import StudyFolder
from optiscope.stats.evidence import read_evidence

RECORDS = Path(__file__).parent / "records"
REPETITIONS = 40_000
ALGORITHMS = 4
SPREADS = {
    "alike": (1.0, 1.0, 1.0, 1.0),
    "the two compared scatter twice as much": (2.0, 2.0, 1.0, 1.0),
    "the two compared scatter three times as much": (3.0, 3.0, 1.0, 1.0),
    "the two compared scatter half as much": (0.5, 0.5, 1.0, 1.0),
}


def scatter_of_records() -> list[tuple[str, str, int, NDArray[np.float64]]]:
    """Study, problem, seeds and the residual standard deviation of each algorithm over seeds."""
    found = []
    for path in sorted(RECORDS.iterdir()):
        if not (path / "study.json").is_file():
            continue
        evidence = read_evidence(StudyFolder(path))
        for problem in evidence.problems:
            table = []
            for label in evidence.labels:
                seeds = sorted(evidence.reporting.get((problem, label), {}))
                values = evidence.values(problem, label, seeds) if seeds else []
                if len(values) >= 5 and np.isfinite(values).all():
                    table.append(values)
            if len(table) < 3 or len({len(row) for row in table}) > 1:
                continue
            y = np.array(table)
            residual = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
            found.append((path.name, problem, y.shape[1], residual.std(1, ddof=1)))
    return found


def pooled_p_values(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two-sided p-values of the first two of the algorithms; y is [R, K, n]."""
    _, k, n = y.shape
    residual = (
        y - y.mean(1, keepdims=True) - y.mean(2, keepdims=True) + y.mean((1, 2), keepdims=True)
    )
    freedom = (k - 1) * (n - 1)
    variance = (residual**2).sum((1, 2)) / freedom
    difference = y[:, 0].mean(1) - y[:, 1].mean(1)
    t = difference / np.sqrt(2 * variance / n)
    p: NDArray[np.float64] = 2 * stats.t.sf(np.abs(t), freedom)
    return p


def main() -> None:
    """Print both tables."""
    ratios = []
    print("| study | problem | seeds | algorithms | largest deviation over smallest |")
    print("|---|---|---|---|---|")
    for study, problem, seeds, deviations in scatter_of_records():
        ratio = deviations.max() / max(deviations.min(), 1e-12)
        ratios.append(ratio)
        print(f"| {study} | {problem} | {seeds} | {len(deviations)} | {ratio:.1f} |")
    print(f"\nmedian {np.median(ratios):.1f}, largest {max(ratios):.1f} of {len(ratios)}\n")
    print("| deviations | 3 | 5 | 10 |")
    print("|---|---|---|---|")
    for name, spread in SPREADS.items():
        rates = []
        for n in (3, 5, 10):
            rng = np.random.default_rng(n)
            y = rng.normal(size=(REPETITIONS, ALGORITHMS, n)) * np.array(spread)[None, :, None]
            rates.append((pooled_p_values(y + rng.normal(size=(REPETITIONS, 1, n))) <= 0.05).mean())
        print(f"| {name} | " + " | ".join(f"{rate:.3f}" for rate in rates) + " |")


if __name__ == "__main__":
    main()
