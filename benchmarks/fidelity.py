"""Do our runs at published settings give the published figures?

Reads the committed records of the shipped studies ``fidelity_mnist_logreg`` and
``fidelity_fmnist_2c2d`` and compares them with DeepOBS's tuned baselines. To make the records
again (MNIST and Fashion-MNIST needed)::

    cd benchmarks
    optiscope bench studies/fidelity_mnist_logreg.toml --out records/fidelity_mnist_logreg
    optiscope bench studies/fidelity_fmnist_2c2d.toml --out records/fidelity_fmnist_2c2d
    python fidelity.py

Exits with 1 where a figure is outside its bound.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean

from optiscope import problems
from optiscope.records import Run, StudyFolder

RECORDS = Path(__file__).parent / "records"
LOGREG_BOUND = 0.003  # accuracy: 0.3 points

# Test accuracy of tuned SGD on fmnist_2c2d after epochs 1 to 5: mean and standard deviation over
# ten seeds. Origin: the public raw results of Bald 2019 (DeepOBS 1.2.0 beta, PyTorch).
PUBLISHED_SGD = {
    1: (0.833914, 0.0245239),
    2: (0.864373, 0.0154828),
    3: (0.878926, 0.0056623),
    4: (0.883243, 0.0123966),
    5: (0.891496, 0.0058321),
}
CURVE_BOUND = 0.005  # accuracy, beside two published standard deviations


def runs_of(study: str) -> dict[str, list[Run]]:
    """Reporting runs of a committed study by algorithm."""
    folder = StudyFolder(RECORDS / study)
    found: dict[str, list[Run]] = {}
    for entry in folder.ledger():
        run = folder.store.read(entry.trial_hash)
        if not isinstance(run, Run):
            sys.exit(f"{entry.algorithm}, seed {entry.seed}: {run or 'no record'}")
        found.setdefault(entry.algorithm, []).append(run)
    return found


def check_logreg() -> bool:
    """Final test accuracy on MNIST logistic regression against the published means."""
    published = {
        b.optimizer: b
        for b in problems.get("mnist_logreg").baselines
        if "PyTorch" in b.source and b.metric == "test_accuracy"
    }
    right = True
    print("mnist_logreg, 50 epochs: test accuracy, ours (seeds), published (ten seeds)")
    for label, runs in runs_of("fidelity_mnist_logreg").items():
        ours = mean(run.final["test_accuracy"] for run in runs)
        theirs = published[label.lower()]
        inside = abs(ours - theirs.mean) <= LOGREG_BOUND
        right &= inside
        print(
            f"  {label:9} {100 * ours:.2f} % ({len(runs)})  {100 * theirs.mean:.2f} "
            f"± {100 * theirs.std:.2f} %  {'inside' if inside else 'OUTSIDE'} 0.3 points"
        )
    return right


def check_curve() -> bool:
    """Test accuracy of SGD on fmnist_2c2d, epoch by epoch."""
    right = True
    print("fmnist_2c2d, SGD 0.113: test accuracy per epoch, ours (seeds), published (ten seeds)")
    runs = runs_of("fidelity_fmnist_2c2d")["SGD"]
    curves = [dict(zip(*run.curve("test", "accuracy"), strict=True)) for run in runs]
    for epoch, (theirs, std) in PUBLISHED_SGD.items():
        ours = mean(curve[epoch] for curve in curves)
        inside = abs(ours - theirs) <= 2 * std + CURVE_BOUND
        right &= inside
        print(
            f"  epoch {epoch}  {100 * ours:.2f} % ({len(runs)})  {100 * theirs:.2f} "
            f"± {100 * std:.2f} %  {'inside' if inside else 'OUTSIDE'} two deviations + 0.5 points"
        )
    return right


if __name__ == "__main__":
    sys.exit(not all([check_logreg(), check_curve()]))
