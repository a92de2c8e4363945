"""Figure of Lark's headline: a few untuned epochs beside a hundred tuned and published ones.

Reads the records of ``optiscope bench lark-headline`` and ``lark-headline-cifar10``, and the
published curves that come with the package.
Run with ``python benchmarks/lark_headline.py --figure FILE``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from optiscope.records import Run, StudyFolder
from optiscope.report.appearance import PALETTE, figure_style
from optiscope.reproduction.published_figures import published_curve

RECORDS = Path(__file__).parent / "records"
STUDIES = {"lark-headline": "Fashion-MNIST", "lark-headline-cifar10": "CIFAR-10"}
PUBLISHED = {"SGD": PALETTE[1], "Momentum": PALETTE[2], "Adam": PALETTE[3]}
LOWEST = 75.0  # per cent, where the axis begins


def curves(folder: StudyFolder) -> list[Mapping[float, float]]:
    """Test accuracy in per cent by epoch, of every run."""
    found = []
    for entry in folder.ledger():
        run = folder.store.read(entry.trial_hash)
        if isinstance(run, Run):
            epochs, values = run.curve("test", "accuracy")
            found.append({e: 100 * v for e, v in zip(epochs, values, strict=True) if e >= 1})
    return found


def draw(axes: Axes, study: str) -> None:
    """One problem: Lark's mean and range, the published means, the published figure to reach."""
    folder = StudyFolder(RECORDS / study)
    declared = folder.declaration()
    runs = curves(folder)
    epochs = sorted(runs[0])
    columns = [[run[e] for run in runs] for e in epochs]
    for name, colour in PUBLISHED.items():
        published = published_curve(str(declared["problems"][0]), name)
        theirs = sorted(e for e in published if e >= 1)
        means = [100 * published[e].mean for e in theirs]
        axes.plot(theirs, means, color=colour, lw=1.2, label=f"{name}, tuned, published")
    axes.fill_between(
        epochs, [min(c) for c in columns], [max(c) for c in columns], color=PALETTE[0], alpha=0.2
    )
    means = [fmean(c) for c in columns]
    axes.plot(epochs, means, color=PALETTE[0], marker="o", lw=2, label="Lark, untuned, here")
    goal = 100 * declared["goals"][0]["value"]
    axes.axhline(goal, color="black", linestyle=":", lw=1)
    axes.annotate(
        f"{means[-1]:.2f} %",
        (epochs[-1], means[-1]),
        textcoords="offset points",
        xytext=(8, -3),
        color=PALETTE[0],
    )
    axes.set(
        title=f"{STUDIES[study]}, {declared['problems'][0]}",
        xlabel="epoch",
        xscale="log",
        ylim=(LOWEST if goal > 90 else 45, None),
    )
    ticks = [1, 2, 3, 5, 10, 20, 50, 100]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, required=True, help="file to write")
    given = parser.parse_args()
    there = [study for study in STUDIES if (RECORDS / study).exists()]
    with figure_style():
        figure, axes = plt.subplots(
            1, len(there), figsize=(4.6 * len(there), 3.3), layout="constrained", squeeze=False
        )
        for ax, study in zip(axes[0], there, strict=True):
            draw(ax, study)
        axes[0][0].set_ylabel("test accuracy (%)")
        axes[0][-1].legend(loc="lower right", frameon=False)
        figure.savefig(given.figure, dpi=150)


if __name__ == "__main__":
    main()
