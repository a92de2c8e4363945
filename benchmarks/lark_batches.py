"""Figure of what the batch size asks of an optimizer: Lark untouched, baselines tuned and not.

Validation accuracy after equal epochs against the batch size, on ``mnist_logreg`` and on the first
10,000 images of ``fmnist_mlp``, from the record of ``lark_ablations.py``. AdamW and momentum stand
twice: at the best of six rates for each batch size, and at the rate that is best at 128.
Run with ``python benchmarks/lark_batches.py --figure FILE``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from lark_sensitivity import RECORDS, figure_file, save_panels
from optiscope.report.appearance import PALETTE

OWN = 128  # the problems' own batch size, which no name of a variant mentions
SIZES = (32, OWN, 512, 1024)
TITLES = {
    "mnist_logreg": "mnist_logreg, 3 epochs",
    "fmnist_mlp_10k": "fmnist_mlp, 10,000 images, 4 epochs",
}


Scores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Per variant and task, as in the record."""


def accuracies(kept: Scores, task: str, optimizer: str) -> dict[float, dict[int, float]]:
    """Validation accuracy in per cent of a baseline by rate and batch size."""
    found: dict[float, dict[int, float]] = {}
    for name, scores in kept.items():
        setting, _, batch = name.partition(", batch ")
        if setting.startswith(f"{optimizer} ") and task in scores:
            rate = float(setting.removeprefix(f"{optimizer} "))
            size = int(batch) if batch else OWN
            found.setdefault(rate, {})[size] = scores[task]["valid_accuracy"]
    return found


def lark(kept: Scores, task: str) -> list[float]:
    """The same of Lark as it comes, in the order of the sizes."""
    names = ["default" if size == OWN else f"batch {size}, lr 1.0" for size in SIZES]
    return [kept[name][task]["valid_accuracy"] for name in names]


def draw(axes: Axes, task: str, kept: Scores) -> None:
    """Lines of one problem."""
    axes.plot(SIZES, lark(kept, task), marker="o", lw=2, color=PALETTE[0], label="Lark, untouched")
    for place, name in enumerate(("AdamW", "Momentum"), start=1):
        by_rate = accuracies(kept, task, name.lower())
        best = [max(values[size] for values in by_rate.values()) for size in SIZES]
        stays = max(by_rate, key=lambda rate: by_rate[rate][OWN])
        style: dict[str, Any] = {"color": PALETTE[place], "marker": "."}
        axes.plot(SIZES, best, **style, label=f"{name}, best rate for each size")
        same = [by_rate[stays][size] for size in SIZES]
        axes.plot(SIZES, same, **style, linestyle="--", label=f"{name}, rate of {OWN}")
    axes.set(xscale="log", title=TITLES[task], xlabel="batch size")
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.minorticks_off()


if __name__ == "__main__":
    recorded = json.loads((RECORDS / "lark_ablations.json").read_text())
    save_panels(figure_file(__doc__), TITLES, partial(draw, kept=recorded))
