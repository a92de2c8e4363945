"""Figure of the shortest horizons at which Lark reaches published results.

Reads the records of ``studies/lark-headline.toml`` and ``lark-headline-cifar10.toml``. What was
published is the mean after a hundred epochs, drawn as a goal and not as a curve: it was tuned for
another horizon.
Run with ``python benchmarks/lark_headline.py --figure FILE``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from optiscope import problems
from optiscope.records import StudyFolder
from optiscope.report.appearance import FIXED
from optiscope.report.figure_style import figure_style
from optiscope.stats.curves import curve
from optiscope.stats.study_table import read_study

RECORDS = Path(__file__).parent / "records"
STUDIES = {"lark-headline": "Fashion-MNIST", "lark-headline-cifar10": "CIFAR-10"}
PUBLISHED = {
    name: f"{word}, tuned, 100 epochs, published"
    for name, word in (("sgd", "SGD"), ("momentum", "momentum"), ("adam", "Adam"))
}


def draw(axes: Axes, study: str) -> None:
    """One problem: Lark's seeds and their mean, and the published final means as dotted goals."""
    tables = read_study(StudyFolder(RECORDS / study))
    (problem,) = tables.problems
    ours = curve(tables, problem, "Lark", "test", "accuracy")
    assert ours is not None
    after = ours.epochs >= 1
    epochs = ours.epochs[after]
    means, low, high = (100 * v[after] for v in (ours.mean, ours.low, ours.high))
    axes.fill_between(epochs, low, high, color=FIXED["lark"], alpha=0.2, lw=0)
    axes.plot(epochs, means, color=FIXED["lark"], marker="o", lw=2, label="Lark, defaults, here")
    baselines = problems.get(problem).baselines
    finals = {
        b.optimizer: 100 * b.mean
        for b in baselines
        if b.optimizer in PUBLISHED and "PyTorch" in b.source
    }
    for name, final in finals.items():
        axes.axhline(final, color=FIXED[name], ls=":", lw=1.3, label=PUBLISHED[name])
    axes.annotate(
        f"{means[-1]:.2f} %",
        (epochs[-1], means[-1]),
        textcoords="offset points",
        xytext=(-20, -16),
        color=FIXED["lark"],
    )
    axes.set(title=f"{STUDIES[study]}, {problem}", xlabel="epoch", xticks=epochs)
    axes.grid(visible=False, axis="x")


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
