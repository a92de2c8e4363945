"""Figure of what the batch size asks of an optimizer: Lark untouched, baselines tuned and not.

Validation accuracy after equal epochs against the batch size, on ``mnist_logreg`` and on the first
10,000 images of ``fmnist_mlp``, from the record of ``lark_ablations.py``. AdamW and momentum stand
twice: at the best of six rates for each batch size, and at the rate that is best at 128.
Run with ``python benchmarks/lark_batches.py --figure FILE``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from optiscope.report.appearance import PALETTE, figure_style

RECORD = Path(__file__).parent / "records" / "lark_ablations.json"
OWN = 128  # the problems' own batch size, which no name of a variant mentions
SIZES = (32, OWN, 512, 1024)
TITLES = {
    "mnist_logreg": "mnist_logreg, 3 epochs",
    "fmnist_mlp_10k": "fmnist_mlp, 10,000 images, 4 epochs",
}


def accuracies(task: str, optimizer: str) -> dict[float, dict[int, float]]:
    """Validation accuracy in per cent of a baseline by rate and batch size."""
    kept = json.loads(RECORD.read_text())
    found: dict[float, dict[int, float]] = {}
    for name, scores in kept.items():
        setting, _, batch = name.partition(", batch ")
        if setting.startswith(f"{optimizer} ") and task in scores:
            rate = float(setting.removeprefix(f"{optimizer} "))
            size = int(batch) if batch else OWN
            found.setdefault(rate, {})[size] = scores[task]["valid_accuracy"]
    return found


def lark(task: str) -> list[float]:
    """The same of Lark as it comes, in the order of the sizes."""
    kept = json.loads(RECORD.read_text())
    names = ["default" if size == OWN else f"batch {size}, lr 1.0" for size in SIZES]
    return [kept[name][task]["valid_accuracy"] for name in names]


def draw(axes: Axes, task: str) -> None:
    """Lines of one problem."""
    axes.plot(SIZES, lark(task), marker="o", lw=2, color=PALETTE[0], label="Lark, untouched")
    for place, name in enumerate(("AdamW", "Momentum"), start=1):
        by_rate = accuracies(task, name.lower())
        best = [max(values[size] for values in by_rate.values()) for size in SIZES]
        stays = max(by_rate, key=lambda rate: by_rate[rate][OWN])
        style = {"color": PALETTE[place], "marker": "."}
        axes.plot(SIZES, best, **style, label=f"{name}, best rate for each size")
        kept = [by_rate[stays][size] for size in SIZES]
        axes.plot(SIZES, kept, **style, linestyle="--", label=f"{name}, rate of {OWN}")
    axes.set(xscale="log", title=TITLES[task], xlabel="batch size")
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.minorticks_off()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, required=True, help="file to write")
    given = parser.parse_args()
    with figure_style():
        figure, all_axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
        for axes, task in zip(all_axes, TITLES, strict=True):
            draw(axes, task)
        all_axes[0].set_ylabel("validation accuracy (%)")
        handles = all_axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(given.figure, dpi=120)


if __name__ == "__main__":
    main()
