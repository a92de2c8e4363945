"""A large batch first, then a small one: are the two ends parted by a barrier?

The line through the end of the first phase (coefficient 0) and of the second (1), from -1 to 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from optiscope import landscape
from optiscope.report.appearance import FAINT, PALETTE
from optiscope.report.figures.panel import Panel
from optiscope.report.legend import Key
from optiscope.report.tables.data_table import Cell as TableCell
from optiscope.report.tables.data_table import DataTable, Row
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.reproduction.talk.experiment import Cell, Measured, TalkExperiment
from optiscope.reproduction.talk.training import loaded, new_model, risk_on, sgd

__all__ = ["TWO_PHASE"]

SMALL = {
    "problem": "digits_conv",
    "samples": None,
    "large": 600,
    "small": 16,
    "rate": 0.1,
    "large_steps": 200,
    "small_steps": 800,
    "points": 31,
}
FULL = {**SMALL, "problem": "cifar10_alexnet", "samples": 50_000, "large": 4000, "small": 100,
        "large_steps": 25_000, "small_steps": 25_000, "points": 61}  # fmt: skip
SEEDS = {"small": 3, "full": 3}
FLAT = 0.05
"""A barrier below this share of the fall from the first end to the second is none."""


def cells(scale: Scale) -> list[Cell]:
    """One for each seed."""
    settings = SMALL if scale == "small" else FULL
    return [{**settings, "seed": seed} for seed in range(SEEDS[scale])]


def measure(cell: Cell, data_dir: Path | None) -> Mapping[str, Any]:
    """Train in two phases; losses and accuracies on the line through their ends."""
    problem, train, test = loaded(cell["problem"], data_dir, cell["samples"])
    model = new_model(problem, cell["seed"])
    ends = []
    for batch, steps in (
        (cell["large"], cell["large_steps"]),
        (cell["small"], cell["small_steps"]),
    ):
        sgd(
            problem, model, train,
            rate=cell["rate"], batch=batch, steps=steps, seed=cell["seed"], every=steps,
        )  # fmt: skip
        ends.append({k: v.clone() for k, v in model.state_dict().items()})
    risk = risk_on(problem, model, train)
    line = landscape.line(
        risk, *ends, points=cell["points"], others={"test": risk_on(problem, model, test)}
    )
    test_curve = line.others["test"]
    accuracies, test_accuracies = line.accuracies, test_curve.accuracies
    assert accuracies is not None
    assert test_accuracies is not None
    return {
        "coefficients": line.coefficients.tolist(),
        "train_loss": line.losses.tolist(),
        "test_loss": test_curve.losses.tolist(),
        "train_accuracy": accuracies.tolist(),
        "test_accuracy": test_accuracies.tolist(),
        "barrier": line.barrier,
        "distance": line.distance,
        "ends": [end.loss for end in line.ends],
        "forwards": line.cost.forwards,
    }


def sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """Verdict, the lines, table."""
    settings = measured[0].cell
    flat, lower = [], []
    for m in measured:
        first, second = m.result["ends"]
        flat.append(m.result["barrier"] <= FLAT * abs(first - second))
        lower.append(second < first)
    words = (
        f"largest barrier {max(m.result['barrier'] for m in measured):.3g} above the higher end, "
        f"where the loss falls from {max(m.result['ends'][0] for m in measured):.3g} (at most) to "
        f"{min(m.result['ends'][1] for m in measured):.3g} (at least)"
    )
    conclusion = (
        "The end of small-batch training lies in the basin of the large-batch end: no barrier on "
        "the line",
        "holds here" if all(flat) and all(lower) else "does not hold here",
        f"in {sum(flat)} of {len(flat)} seeds; {words}. The first end is no minimum, so that this "
        "is about the line between two points of one run, not about two basins",
    )
    return (
        Section(
            "The line through both ends, and beyond",
            f"{settings['problem']}, batch {settings['large']} for {settings['large_steps']:,} "
            f"steps, then {settings['small']} for {settings['small_steps']:,}, rate "
            f"{settings['rate']}, {len(measured)} seeds.",
            conclusions=(conclusion,),
            panels=(
                Panel(
                    "two-phase",
                    partial(_draw, measured=measured),
                    "Training and test loss on the line from -1 to 2",
                    keys=(Key("training loss", PALETTE[0]), Key("test loss", PALETTE[1], (5, 2))),
                ),
            ),
            tables=(_table(measured),),
        ),
    )


def _table(measured: Sequence[Measured]) -> DataTable:
    rows = []
    for m in measured:
        r = m.result
        best = min(range(len(r["test_loss"])), key=r["test_loss"].__getitem__)
        rows.append(
            Row(
                [
                    TableCell(f"seed {m.cell['seed']}"),
                    TableCell(f"{r['ends'][0]:.3g}"),
                    TableCell(f"{r['ends'][1]:.3g}"),
                    TableCell(f"{max(0.0, r['barrier']):.3g}"),
                    TableCell(f"{r['distance']:.3g}"),
                    TableCell(f"{r['coefficients'][best]:.2f}"),
                    TableCell(f"{100 * r['test_accuracy'][best]:.3g}"),
                ]
            )
        )
    return DataTable(
        [
            "run",
            "#loss after large batches",
            "#after small batches",
            "#barrier",
            "#distance",
            "#lowest test loss at",
            "#test accuracy there (%)",
        ],
        rows,
    )


def _draw(axes: Axes, measured: Sequence[Measured]) -> None:
    for m in measured:
        r = m.result
        axes.plot(r["coefficients"], r["train_loss"], color=PALETTE[0], alpha=0.8)
        axes.plot(
            r["coefficients"], r["test_loss"], color=PALETTE[1], linestyle=(0, (5, 2)), alpha=0.8
        )
    for end in (0.0, 1.0):
        axes.axvline(end, color=FAINT, linewidth=1.0, linestyle=(0, (1.5, 1.5)))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("coefficient: 0 large batch, 1 small batch after it")
    axes.set_ylabel("loss")
    axes.set_title("One curve a seed")


TWO_PHASE = TalkExperiment(
    "two-phase",
    "Large batches, then small ones: is there a barrier between?",
    "Published: a bare AlexNet on CIFAR-10 trained with large batches, then small ones, 50,000 "
    "steps in all; on the line through both ends, from -1 to 2, the loss falls without a barrier.",
    "L. Sagun 2018, An Empirical Look at the Loss Landscape (talk)",
    cells,
    measure,
    sections,
    {"small": "digits_conv in place of AlexNet on CIFAR-10, which takes days on two cores."},
)
