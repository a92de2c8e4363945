"""Figure of Lark's headline: a few untuned epochs beside a hundred tuned and published ones.

Reads the records of ``studies/lark-headline.toml`` and ``lark-headline-cifar10.toml``, and the
published curves that come with the package.
Run with ``python benchmarks/lark_headline.py --figure FILE``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from optiscope.records import StudyFolder
from optiscope.report.appearance import PALETTE
from optiscope.report.figure_style import figure_style
from optiscope.reproduction.published_figures import published_curve
from optiscope.stats.curves import curve
from optiscope.stats.goals import goals_of
from optiscope.stats.study_table import read_study

RECORDS = Path(__file__).parent / "records"
STUDIES = {"lark-headline": "Fashion-MNIST", "lark-headline-cifar10": "CIFAR-10"}
PUBLISHED = {"SGD": PALETTE[1], "Momentum": PALETTE[2], "Adam": PALETTE[3]}
RANGES = {"lark-headline": (82.0, 93.6), "lark-headline-cifar10": (45.0, 87.0)}  # per cent


def draw(axes: Axes, study: str) -> None:
    """One problem: Lark's mean and range, the published means, the published figure to reach."""
    tables = read_study(StudyFolder(RECORDS / study))
    (problem,), (goal,) = tables.problems, goals_of(tables)
    ours = curve(tables, problem, "Lark", "test", "accuracy")
    assert ours is not None
    after = ours.epochs >= 1
    epochs = ours.epochs[after]
    means, low, high = (100 * v[after] for v in (ours.mean, ours.low, ours.high))
    for name, colour in PUBLISHED.items():
        published = published_curve(problem, name)
        theirs = sorted(e for e in published if e >= 1)
        values = [100 * published[e].mean for e in theirs]
        axes.plot(theirs, values, color=colour, lw=1.2, label=f"{name}, tuned, published")
    axes.fill_between(epochs, low, high, color=PALETTE[0], alpha=0.2)
    axes.plot(epochs, means, color=PALETTE[0], marker="o", lw=2, label="Lark, untuned, here")
    axes.axhline(100 * goal.value, color="black", linestyle=":", lw=1)
    axes.annotate(
        f"{means[-1]:.2f} %",
        (epochs[-1], means[-1]),
        textcoords="offset points",
        xytext=(-20, 9),
        color=PALETTE[0],
    )
    axes.set(
        title=f"{STUDIES[study]}, {problem}",
        xlabel="epoch",
        xscale="log",
        ylim=RANGES[study],
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
