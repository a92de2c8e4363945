"""Figure of what a wrong factor costs: Lark's ``lr`` beside the baselines' rates.

Validation accuracy on ``fmnist_2c2d_10k`` after three annealed epochs, against the factor on the
best value: Lark from the records of ``lark_ablations.py``, the baselines from the tuning runs of
``optiscope bench fashion_quick``.
Run with ``python benchmarks/lark_sensitivity.py --figure FILE``.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt

from optiscope.records import Run, StudyFolder
from optiscope.report.appearance import PALETTE, figure_style

RECORDS = Path(__file__).parent / "records"
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
BASELINES = {"SGD": PALETTE[1], "Momentum": PALETTE[2], "Adam": PALETTE[3]}
LOWEST = 72.0  # per cent, where the axis begins; runs below it fail


def lark(l2: bool) -> dict[float, float]:
    """Validation accuracy in per cent by factor, with or without L2 in the loss."""
    kept = json.loads((RECORDS / "lark_ablations.json").read_text())
    found = {}
    for factor in FACTORS:
        parts = (["l2 5e-4"] if l2 else []) + ([f"lr {factor}"] if factor != 1 else [])
        name = ", ".join(parts) or "default"
        found[factor] = kept[name]["fmnist_2c2d_10k"]["valid_accuracy"]
    return found


def baselines() -> dict[str, dict[float, float]]:
    """The same of every tuned baseline, by the factor on its best rate."""
    folder = StudyFolder(RECORDS / "fashion_quick")
    tried: dict[str, dict[float, float]] = defaultdict(dict)
    for entry in folder.ledger():
        run = folder.store.read(entry.trial_hash)
        if entry.role == "tuning" and isinstance(run, Run):
            accuracy = 100 * run.curve("valid", "accuracy")[1][-1]
            tried[entry.algorithm][float(entry.hyperparameters["lr"])] = accuracy
    found = {}
    for name, by_rate in tried.items():
        best = max(by_rate, key=lambda rate: by_rate[rate])
        found[name] = {rate / best: value for rate, value in by_rate.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, required=True, help="file to write")
    given = parser.parse_args()
    with figure_style():
        figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
        for name, values in baselines().items():
            label, colour = f"{name}, on its best rate", BASELINES[name]
            axes.plot(
                *zip(*sorted(values.items()), strict=True), marker=".", color=colour, label=label
            )
        for l2, label, style in ((False, "Lark, lr", "-"), (True, "Lark, lr, with L2", "--")):
            points = zip(*lark(l2).items(), strict=True)
            axes.plot(*points, marker="o", lw=2, linestyle=style, color=PALETTE[0], label=label)
        ticks = [1 / 64, 1 / 16, 1 / 4, 1, 4]
        axes.set(xscale="log", ylim=(LOWEST, None), xlim=(1 / 128, 6))
        axes.set_xticks(ticks, ["1/64", "1/16", "1/4", "1", "4"], minor=False)
        axes.minorticks_off()
        axes.set(xlabel="factor", ylabel="validation accuracy (%)", title="fmnist_2c2d_10k")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        figure.savefig(given.figure, dpi=120)


if __name__ == "__main__":
    main()
