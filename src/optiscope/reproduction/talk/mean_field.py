"""Two layers scaled by 1/N: does the gap between GD and SGD close as N grows?

f(x) = 1/N sum_i a_i tanh(w_i x), learning rates times N, so that a unit moves by as much whatever
the width. GD over a fixed set of samples and SGD from the same start are compared after the same
time by the distance of the two functions, and by the difference of their losses.

Index legend: N units, n samples, D inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter
from torch import Tensor

from optiscope.report.appearance import PALETTE
from optiscope.report.figures.panel import Panel
from optiscope.report.legend import Key
from optiscope.report.tables.data_table import Cell as TableCell
from optiscope.report.tables.data_table import DataTable, Row
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.reproduction.talk.experiment import Cell, Measured, TalkExperiment

__all__ = ["MEAN_FIELD"]

SMALL = {"inputs": 5, "samples": 200, "batch": 5, "rate": 0.2, "steps": 500}
WIDTHS = {"small": (10, 30, 100, 300, 1000), "full": (10, 30, 100, 300, 1000, 3000, 10_000)}
SEEDS = {"small": 5, "full": 20}
CLOSES = -0.25
"""Slope of log gap against log N below which the gap closes; 1/sqrt(N) has -0.5."""


def cells(scale: Scale) -> list[Cell]:
    """Every width with every seed, at two learning rates."""
    return [
        {**SMALL, "rate": rate, "steps": round(SMALL["steps"] * SMALL["rate"] / rate),
         "width": width, "seed": seed}
        for rate in (SMALL["rate"], SMALL["rate"] / 4)
        for width in WIDTHS[scale]
        for seed in range(SEEDS[scale])
    ]  # fmt: skip


def measure(cell: Cell, data_dir: Path | None) -> Mapping[str, Any]:
    """Train by GD and by SGD from one start; distance of the functions, losses."""
    samples = torch.Generator().manual_seed(0)  # the same for every cell
    inputs = torch.randn(cell["samples"], cell["inputs"], generator=samples)
    teacher = torch.randn(3, cell["inputs"], generator=samples)
    targets = torch.tanh(inputs @ teacher.T).mean(1)
    fresh = torch.randn(2000, cell["inputs"], generator=samples)
    generator = torch.Generator().manual_seed(cell["seed"] + 1)
    start = (
        torch.randn(cell["width"], cell["inputs"], generator=generator),
        torch.randn(cell["width"], generator=generator),
    )
    ends = {
        batch: _descend(cell, start, inputs, targets, batch, generator)
        for batch in (cell["samples"], cell["batch"])
    }
    full, noisy = (ends[batch] for batch in (cell["samples"], cell["batch"]))
    losses = [float((_output(w, a, inputs) - targets).square().mean()) for w, a in (full, noisy)]
    gap = (_output(*full, fresh) - _output(*noisy, fresh)).square().mean().sqrt()
    scale = _output(*full, fresh).square().mean().sqrt()
    return {"gap": float(gap / scale), "losses": losses}


def _output(weights: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
    return torch.tanh(inputs @ weights.T) @ outputs / len(outputs)


def _descend(
    cell: Cell,
    start: tuple[Tensor, Tensor],
    inputs: Tensor,
    targets: Tensor,
    batch: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Weights [N, D] and outputs [N] after the steps, by hand: the gradient has a closed form."""
    weights, outputs = start[0].clone(), start[1].clone()
    width, rate = cell["width"], cell["rate"]
    for _ in range(cell["steps"]):
        if batch < len(inputs):
            chosen = torch.randint(len(inputs), (batch,), generator=generator)
            x, y = inputs[chosen], targets[chosen]
        else:
            x, y = inputs, targets
        hidden = torch.tanh(x @ weights.T)
        error = 2 * (hidden @ outputs / width - y) / len(x)
        to_outputs = hidden.T @ error
        to_weights = ((1 - hidden.square()) * error[:, None] * outputs).T @ x
        outputs -= rate * to_outputs  # N times the gradient, which is 1/N of this
        weights -= rate * to_weights
    return weights, outputs


def slope(gaps: Mapping[int, Sequence[float]]) -> tuple[float, float]:
    """Slope of log gap against log width by least squares, and its standard error."""
    x = [math.log(w) for w, found in gaps.items() for _ in found]
    y = [math.log(g) for found in gaps.values() for g in found]
    mean_x, mean_y = fmean(x), fmean(y)
    spread = sum((v - mean_x) ** 2 for v in x)
    value = sum((v - mean_x) * (u - mean_y) for v, u in zip(x, y, strict=True)) / spread
    residuals = [u - mean_y - value * (v - mean_x) for v, u in zip(x, y, strict=True)]
    variance = sum(r * r for r in residuals) / max(1, len(x) - 2)
    return value, math.sqrt(variance / spread)


def sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """Verdict, gap against width, table."""
    rates = sorted({m.cell["rate"] for m in measured}, reverse=True)
    gaps = {
        rate: {
            width: [m.result["gap"] for m in measured
                    if (m.cell["rate"], m.cell["width"]) == (rate, width)]
            for width in sorted({m.cell["width"] for m in measured})
        }
        for rate in rates
    }  # fmt: skip
    slopes = {rate: slope(found) for rate, found in gaps.items()}
    closes = [v + 2 * e < CLOSES for v, e in slopes.values()]
    stands = [v - 2 * e > CLOSES for v, e in slopes.values()]
    words = "; ".join(
        f"rate {rate:g}: slope {v:.2f} ± {2 * e:.2f} of log gap against log N, gap "
        f"{fmean(gaps[rate][min(gaps[rate])]):.2g} -> {fmean(gaps[rate][max(gaps[rate])]):.2g}"
        for rate, (v, e) in slopes.items()
    )
    wide = max(gaps[rates[0]])
    falls = fmean(gaps[rates[0]][wide]) / fmean(gaps[rates[-1]][wide])
    settings = measured[0].cell
    return (
        Section(
            "Distance of the functions that GD and SGD find",
            f"{settings['inputs']} inputs, {settings['samples']} samples of a teacher of three "
            f"units, batch {settings['batch']}, the same training time at both rates, "
            f"{len(gaps[rates[0]][wide])} seeds; root mean square over fresh inputs, relative to "
            "GD's function.",
            conclusions=(
                (
                    "The gap between GD and SGD closes as the width N grows",
                    "holds here" if all(closes) else "does not hold here" if all(stands)
                    else "undecided",
                    words,
                ),
                (
                    "A smaller learning rate narrows it",
                    "holds here" if falls > 1.2 else "does not hold here",
                    f"at N = {wide}: {falls:.2g} times narrower at a quarter of the rate (the "
                    "square root of four is 2)",
                ),
            ),
            panels=(
                Panel(
                    "mean-field",
                    partial(_draw, gaps=gaps),
                    "Gap between GD and SGD against the width",
                    keys=tuple(
                        Key(f"rate {rate:g}", color, marker=marker)
                        for rate, color, marker in zip(rates, PALETTE, "os", strict=False)
                    ),
                ),
            ),
            tables=(_table(measured, gaps),),
        ),
    )  # fmt: skip


def _table(
    measured: Sequence[Measured], gaps: Mapping[float, Mapping[int, Sequence[float]]]
) -> DataTable:
    rows = []
    for rate, by_width in gaps.items():
        for width, found in by_width.items():
            losses = [
                m.result["losses"]
                for m in measured
                if (m.cell["rate"], m.cell["width"]) == (rate, width)
            ]
            spread = f" ± {stdev(found):.1g}" if len(found) > 1 else ""
            rows.append(
                Row(
                    [
                        TableCell(f"rate {rate:g}, N = {width:,}"),
                        TableCell(f"{fmean(found):.3g}{spread}"),
                        TableCell(f"{fmean(x[0] for x in losses):.2g}"),
                        TableCell(f"{fmean(x[1] for x in losses):.2g}"),
                    ]
                )
            )
    return DataTable(["setting", "#gap", "#loss of GD", "#loss of SGD"], rows)


def _draw(axes: Axes, gaps: Mapping[float, Mapping[int, Sequence[float]]]) -> None:
    for (_, found), color, marker in zip(gaps.items(), PALETTE, "os", strict=False):
        axes.plot(list(found), [fmean(v) for v in found.values()], color=color)
        for width, values in found.items():
            axes.plot([width] * len(values), values, marker, color=color, alpha=0.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("units N")
    axes.set_ylabel("relative gap")
    axes.set_title("Mean and every seed")


MEAN_FIELD = TalkExperiment(
    "mean-field",
    "Two layers scaled by 1/N: does the gap between GD and SGD close?",
    "Published: with this scaling the distribution of units follows one equation as N grows, for "
    "GD and for SGD with small steps; the error falls with N and with the step (Mei, Montanari & "
    "Nguyen 2018; Rotskoff & Vanden-Eijnden 2018). The talk asks whether SGD is special there.",
    "L. Sagun 2018 (talk); Mei, Montanari & Nguyen 2018",
    cells,
    measure,
    sections,
)
