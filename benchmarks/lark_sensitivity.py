"""Figure of what a wrong factor costs: Lark's ``lr`` beside the baselines' rates.

Validation accuracy against the factor on the best value, all annealed: Lark from the records of
``lark_ablations.py`` (three epochs of ``fmnist_2c2d``, six of ``cifar10_3c3d``), the baselines from
the tuning runs of ``studies/lark-baselines-conv.toml`` (four) and ``lark-baselines-cifar10.toml``
(six). Adam is left out: its line lies on AdamW's.
Run with ``python benchmarks/lark_sensitivity.py --figure FILE``.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from optiscope.records import Run, StudyFolder
from optiscope.report.appearance import PALETTE
from optiscope.report.figure_style import figure_style

T = TypeVar("T")
RECORDS = Path(__file__).parent / "records"
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
COLOURS = {
    "SGD": PALETTE[1],
    "Momentum": PALETTE[2],
    "AdamW": PALETTE[3],
    "NAdam": PALETTE[4],
}


@dataclass(frozen=True)
class Panel:
    """A problem: its task in the ablations, the study with the baselines, its range of the axis."""

    task: str
    study: str
    l2: str
    shown: tuple[float, float]


PANELS = (
    Panel("fmnist_2c2d", "lark-baselines-conv", "l2 5e-4", (80.0, 95.0)),
    Panel("cifar10_3c3d", "lark-baselines-cifar10", "l2 2e-3", (45.0, 85.0)),
)


def lark(panel: Panel, *, l2: bool) -> dict[float, float]:
    """Validation accuracy in per cent by factor, with or without L2 in the loss."""
    kept = json.loads((RECORDS / "lark_ablations.json").read_text())
    found = {}
    for factor in FACTORS:
        parts = ([panel.l2] if l2 else []) + ([f"lr {factor}"] if factor != 1 else [])
        name = ", ".join(parts) or "default"
        if panel.task in kept.get(name, {}):
            found[factor] = kept[name][panel.task]["valid_accuracy"]
    return found


def baselines(panel: Panel) -> dict[str, dict[float, float]]:
    """The same of baselines whose tuning has ended, by the factor on the best rate."""
    folder = StudyFolder(RECORDS / panel.study)
    reported = {entry.algorithm for entry in folder.ledger() if entry.role == "reporting"}
    chosen = reported & COLOURS.keys()
    tried: dict[str, dict[float, float]] = defaultdict(dict)
    for entry in folder.ledger():
        if entry.role != "tuning" or entry.algorithm not in chosen:
            continue
        run = folder.store.read(entry.trial_hash)
        if isinstance(run, Run):
            accuracy = 100 * run.curve("valid", "accuracy")[1][-1]
            tried[entry.algorithm][float(entry.hyperparameters["lr"])] = accuracy
    found = {}
    for name, by_rate in tried.items():
        best = max(by_rate, key=lambda rate: by_rate[rate])
        found[name] = {rate / best: value for rate, value in by_rate.items()}
    return found


def draw(axes: Axes, panel: Panel) -> None:
    """Lines of one problem."""
    for name, values in baselines(panel).items():
        points = zip(*sorted(values.items()), strict=True)
        label = f"{name}, on its best rate"
        axes.plot(*points, marker=".", color=COLOURS[name], label=label)
    for l2, label, style in ((False, "Lark, lr", "-"), (True, "Lark, lr, with L2", "--")):
        found = lark(panel, l2=l2)
        if len(found) < len(FACTORS):
            continue  # not run
        axes.plot(
            *zip(*found.items(), strict=True),
            marker="o",
            lw=2,
            linestyle=style,
            color=PALETTE[0],
            label=label,
        )
    axes.set(xscale="log", ylim=panel.shown, xlim=(1 / 128, 6), title=panel.task)
    axes.set_xticks([1 / 64, 1 / 16, 1 / 4, 1, 4], ["1/64", "1/16", "1/4", "1", "4"], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("factor")


def save_panels(file: Path, panels: Iterable[T], draw: Callable[[Axes, T], None]) -> None:
    """Write a figure of two panels with one legend below them."""
    with figure_style():
        figure, all_axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
        for axes, panel in zip(all_axes, panels, strict=True):
            draw(axes, panel)
        all_axes[0].set_ylabel("validation accuracy (%)")
        handles = all_axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(file, dpi=120)


def figure_file(description: str) -> Path:
    """The file that the command line asks for."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--figure", type=Path, required=True, help="file to write")
    file: Path = parser.parse_args().figure
    return file


if __name__ == "__main__":
    save_panels(figure_file(__doc__), PANELS, draw)
