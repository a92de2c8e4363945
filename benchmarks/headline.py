"""Headline figure: optimizers without a learning rate to set, at their defaults, seed by seed.

Every panel is one problem at one horizon; all optimizers in it ran with their default
hyperparameters, for the same number of epochs, from the same seeds. A line joins the runs of one
seed. The dotted line is the published result of SGD, tuned for a hundred epochs (fifty on
``mnist_logreg``): a figure to reach, not a run to compare with. `optiscope claim` answers every
comparison that the figure shows; ``tests/reproduction/test_headline.py`` asks it.
Run with ``python benchmarks/headline.py docs/figures/headline.png``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from optiscope import problems
from optiscope.records import StudyFolder
from optiscope.report.appearance import FAINT, FIXED
from optiscope.report.figure_style import figure_style
from optiscope.stats.evidence import read_evidence
from optiscope.stats.naming import counted

RECORDS = Path(__file__).parent / "records"
OPTIMIZERS = {
    "Lark": "lark",
    "Schedule-Free AdamW": "schedulefree_adamw",
    "Prodigy": "prodigy",
    "D-Adaptation": "dadapt_adam",
}
COLORS = FIXED | {"dadapt_adam": "#8270ee"}


@dataclass(frozen=True)
class Panel:
    """One problem at one horizon of one recorded study."""

    study: str
    problem: str

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(RECORDS / self.study)


PANELS = (
    Panel("lark-baselines", "mnist_logreg"),
    Panel("lark-baselines", "mnist_mlp"),
    Panel("lark-baselines", "fmnist_mlp"),
    Panel("lark-baselines-conv", "fmnist_2c2d"),
    Panel("lark-baselines-ten-epochs", "fmnist_2c2d"),
    Panel("lark-baselines-cifar10", "cifar10_3c3d"),
)
"""Every recorded study that holds at least three of :data:`OPTIMIZERS` on a published problem."""


def accuracies(panel: Panel) -> dict[str, dict[int, float]]:
    """Final test accuracy in per cent by seed, of every optimizer that ran, Lark first."""
    frame = panel.folder.frame()
    frame = frame[(frame.problem == panel.problem) & (frame.role == "reporting")]
    found = {}
    for label in OPTIMIZERS:
        rows = frame[frame.algorithm == label]
        if rows.final_test_accuracy.notna().any():
            seeds = zip(rows.seed, rows.final_test_accuracy, strict=True)
            found[label] = {int(seed): 100 * float(value) for seed, value in seeds}
    return found


def epochs(panel: Panel) -> int:
    """The horizon that all optimizers of a panel share."""
    return int(read_evidence(panel.folder).declaration["epochs"][panel.problem])


def published(problem: str) -> float | None:
    """Mean test accuracy of SGD at its tuned rate in per cent, from DeepOBS for PyTorch."""
    for baseline in problems.get(problem).baselines:
        if baseline.optimizer == "sgd" and "PyTorch" in baseline.source:
            return 100 * baseline.mean
    return None


def draw(axes: Axes, panel: Panel) -> None:
    """One panel: a column of dots for each optimizer, joined by seed."""
    values = accuracies(panel)
    labels = list(values)
    for seed in values["Lark"]:
        line = [values[label].get(seed, np.nan) for label in labels]
        axes.plot(range(len(labels)), line, color=FAINT, lw=0.6, alpha=0.5, zorder=1)
    for x, label in enumerate(labels):
        dots = list(values[label].values())
        color = COLORS[OPTIMIZERS[label]]
        axes.plot([x] * len(dots), dots, "o", color=color, ms=4.5, alpha=0.75, zorder=2)
        axes.plot([x - 0.22, x + 0.22], [np.mean(dots)] * 2, color=color, lw=2.2, zorder=3)
    goal = published(panel.problem)
    if goal is not None:
        axes.axhline(goal, color="black", ls=":", lw=1)
    seeds = counted(len(values["Lark"]), "seed")
    axes.set_title(f"{panel.problem}, {counted(epochs(panel), 'epoch')}, {seeds}", fontsize=9)
    ticks = [label.replace(" ", "\n", 1) for label in labels]
    axes.set_xticks(range(len(labels)), ticks, fontsize=7.5)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.grid(visible=False, axis="x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", type=Path, help="file to write")
    given = parser.parse_args()
    with figure_style():
        figure, grid = plt.subplots(2, 3, figsize=(10.2, 5.2), layout="constrained")
        for axes, panel in zip(grid.flat, PANELS, strict=True):
            draw(axes, panel)
        for axes in grid[:, 0]:
            axes.set_ylabel("test accuracy (%)")
        figure.suptitle(
            "Default hyperparameters, equal epochs, the same seeds; "
            "dotted: SGD, tuned and trained for 50 to 100 epochs, as published",
            fontsize=9.5,
            ha="left",
            x=0.01,
        )
        figure.savefig(given.figure, dpi=150)


if __name__ == "__main__":
    main()
