"""Whether large batches end in sharper places: the rate varied, the loss matched.

At one rate a large batch makes fewer, less noisy steps: what looks like an effect of the batch may
be one of the rate. So every batch is trained at many rates until the same training loss, and a
claim about batches must hold whatever the rates; otherwise it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from optiscope.report.appearance import PALETTE
from optiscope.report.figures.panel import Panel
from optiscope.report.legend import Key
from optiscope.report.tables.data_table import Cell as TableCell
from optiscope.report.tables.data_table import DataTable, Row
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.reproduction.talk.experiment import Cell, Measured, TalkExperiment
from optiscope.reproduction.talk.training import leading, loaded, new_model, risk_on, sgd

__all__ = ["LARGE_BATCH", "verdict"]

SMALL = {
    "problem": "digits_mlp",
    "samples": None,
    "loss": 0.2,
    "steps": 2500,
    "eigenvalues": 12,
}
FULL = {"problem": "mnist_mlp", "samples": 10_000, "loss": 0.1, "steps": 40_000, "eigenvalues": 40}
BATCHES = {"small": (16, 600), "full": (32, 4000)}
RATES = (0.05, 0.1, 0.2, 0.4)
SEEDS = {"small": 3, "full": 5}
THRESHOLD = 1.0
"""Eigenvalues above are counted; a stated number, as in the published figure."""


def cells(scale: Scale) -> list[Cell]:
    """Every batch at every rate with every seed."""
    settings = SMALL if scale == "small" else FULL
    return [
        {**settings, "batch": batch, "rate": rate, "seed": seed}
        for batch in BATCHES[scale]
        for rate in RATES
        for seed in range(SEEDS[scale])
    ]


def measure(cell: Cell, data_dir: Path | None) -> Mapping[str, Any]:
    """Train until the loss is reached; leading eigenvalues there, test accuracy."""
    problem, train, test = loaded(cell["problem"], data_dir, cell["samples"])
    model = new_model(problem, cell["seed"])
    steps, loss = sgd(
        problem, model, train,
        rate=cell["rate"], batch=cell["batch"], steps=cell["steps"], seed=cell["seed"],
        until=cell["loss"], every=10,
    )  # fmt: skip
    reached = loss <= cell["loss"]
    if not reached:
        return {"reached": False, "steps": steps, "train_loss": loss}
    risk = risk_on(problem, model, train)
    figures = risk_on(problem, model, test).evaluate()
    return {
        "reached": True,
        "steps": steps,
        "train_loss": loss,
        **leading(risk, cell["eigenvalues"]),
        "test_loss": figures["loss"],
        "test_accuracy": figures["accuracy"],
    }


def by_rate(measured: Sequence[Measured], batch: int) -> dict[float, list[float]]:
    """Largest eigenvalue of every seed, at rates where all seeds reached the loss."""
    found: dict[float, list[float]] = {}
    for rate in RATES:
        rows = [m for m in measured if (m.cell["batch"], m.cell["rate"]) == (batch, rate)]
        if rows and all(m.result["reached"] and m.result["converged"] for m in rows):
            found[rate] = [m.result["eigenvalues"][0] for m in rows]
    return found


def verdict(
    small: Mapping[float, Sequence[float]], large: Mapping[float, Sequence[float]]
) -> tuple[str, str]:
    """Verdict and evidence on "large batches end in sharper places", by rate and seed.

    It is supported only where every seed of the large batch is sharper than every seed of the small
    one at every pair of rates; where the order turns with the rates the claim is refused.
    """
    if len(small) < 2 or len(large) < 2:
        return "refused", (
            f"the matched loss was reached at {len(small)} rates by the small batch, {len(large)} "
            "by the large one: the rate is not varied"
        )
    equal = [r for r in small if r in large]
    sharper = [r for r in equal if min(large[r]) > max(small[r])]
    text = (
        f"at equal rates the large batch is sharper in every seed at {len(sharper)} of "
        f"{len(equal)} rates"
    )
    lowest = min(large, key=lambda r: fmean(large[r]))
    highest = max(small, key=lambda r: fmean(small[r]))
    if min(min(v) for v in large.values()) > max(max(v) for v in small.values()):
        return "supported", f"{text}, and at every pair of rates"
    if max(max(v) for v in large.values()) < min(min(v) for v in small.values()):
        return "contradicted", f"{text}; it is flatter at every pair of rates"
    return "refused", (
        f"{text}, but the rate decides: the large batch at rate {lowest:g} ends at "
        f"{fmean(large[lowest]):.3g}, the small one at rate {highest:g} at "
        f"{fmean(small[highest]):.3g}"
    )


def sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """Verdict, figure of eigenvalue against rate, table."""
    settings = measured[0].cell
    small, large = sorted({m.cell["batch"] for m in measured})
    values = {batch: by_rate(measured, batch) for batch in (small, large)}
    word, evidence = verdict(values[small], values[large])
    counts = {
        batch: [
            sum(v > THRESHOLD for v in m.result["eigenvalues"])
            for m in measured
            if m.cell["batch"] == batch and m.result["reached"]
        ]
        for batch in (small, large)
    }
    classes = 10
    near = [abs(c - (classes - 1)) <= 1 for found in counts.values() for c in found]
    outliers = (
        f"About as many outliers as classes ({classes} - 1), whatever the batch",
        "holds here" if near and all(near) else "does not hold here",
        "eigenvalues above "
        + f"{THRESHOLD:g}: "
        + "; ".join(
            f"batch {batch}: {min(found)} to {max(found)}"
            for batch, found in counts.items()
            if found
        ),
    )
    return (
        Section(
            "Largest eigenvalue where the training loss is the same",
            f"{settings['problem']}, plain SGD until the training loss over all samples is "
            f"{settings['loss']}, at most {settings['steps']:,} steps; batches {small}, {large}, "
            f"{len(RATES)} rates, {len({m.cell['seed'] for m in measured})} seeds.",
            conclusions=(
                ("Large batches end in sharper places (larger outliers)", word, evidence),
                outliers,
            ),
            panels=(
                Panel(
                    "large-batch",
                    partial(_draw, values=values),
                    "Largest eigenvalue against the learning rate for two batch sizes",
                    keys=tuple(
                        Key(f"batch {batch}", color, marker=marker)
                        for batch, color, marker in zip(values, PALETTE, "os", strict=False)
                    ),
                ),
            ),
            tables=(_table(measured),),
        ),
    )


def _table(measured: Sequence[Measured]) -> DataTable:
    rows = []
    for batch in sorted({m.cell["batch"] for m in measured}):
        for rate in RATES:
            found = [
                m.result for m in measured if (m.cell["batch"], m.cell["rate"]) == (batch, rate)
            ]
            reached = [r for r in found if r["reached"]]
            numbers = (
                [
                    " ".join(f"{r['eigenvalues'][0]:.3g}" for r in reached),
                    " ".join(str(sum(v > THRESHOLD for v in r["eigenvalues"])) for r in reached),
                    f"{fmean(r['steps'] for r in reached):,.0f}",
                    f"{100 * fmean(r['test_accuracy'] for r in reached):.3g}",
                ]
                if reached
                else [""] * 4
            )
            rows.append(
                Row(
                    [
                        TableCell(f"batch {batch}, rate {rate:g}"),
                        TableCell(f"{len(reached)} of {len(found)}"),
                        *map(TableCell, numbers),
                    ]
                )
            )
    return DataTable(
        [
            "setting",
            "#reached the loss",
            "#largest eigenvalue, each seed",
            f"#above {THRESHOLD:g}",
            "#steps",
            "#test accuracy (%)",
        ],
        rows,
    )


def _draw(axes: Axes, values: Mapping[int, Mapping[float, list[float]]]) -> None:
    for (_, found), color, marker in zip(values.items(), PALETTE, "os", strict=False):
        rates = list(found)
        axes.plot(rates, [fmean(found[r]) for r in rates], color=color)
        for rate in rates:
            axes.plot([rate] * len(found[rate]), found[rate], marker, color=color, alpha=0.7)
    axes.set_xscale("log")
    axes.set_xticks(RATES, [f"{r:g}" for r in RATES])
    axes.minorticks_off()
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("largest eigenvalue")
    axes.set_title("At the same training loss")


LARGE_BATCH = TalkExperiment(
    "large-batch",
    "Do large batches end in sharper places?",
    "Published: the largest eigenvalues of the Hessian where training with large batches ends lie "
    "above those of small batches (Keskar et al. 2017: sharpness 1.2 against 205 for a network "
    "like MNIST's; the talk's figure of the top 40), at one rate each.",
    "L. Sagun 2018 (talk), slide 22; Keskar et al. 2017, Table 3",
    cells,
    measure,
    sections,
    {"small": "digits in place of MNIST; Keskar's sharpness in a box is not measured."},
)
