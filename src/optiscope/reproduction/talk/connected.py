"""Arbitrary solutions of networks from too narrow to far too wide: where does the barrier vanish?

For each width some pairs of independently trained networks are joined by a growing path. Networks
are trained until L-BFGS hardly lowers the loss any more; where it still does, a barrier would mean
nothing and the width counts as undecided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from optiscope import landscape
from optiscope.problems.models.dense import multilayer_perceptron
from optiscope.problems.models.initialise import he_normal
from optiscope.report.appearance import PALETTE
from optiscope.report.figures.panel import Panel
from optiscope.report.legend import Key
from optiscope.report.tables.data_table import Cell as TableCell
from optiscope.report.tables.data_table import DataTable, Row
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.reproduction.talk.beside import plain_ticks
from optiscope.reproduction.talk.experiment import Cell, Measured, TalkExperiment
from optiscope.reproduction.talk.training import loaded, polish, risk_on, sgd

__all__ = ["CONNECTED"]

SMALL = {"problem": "digits_mlp", "samples": 400, "steps": 800, "polish": 500, "gradients": 400}
FULL = {"problem": "mnist_mlp", "samples": 5000, "steps": 10_000, "polish": 3000,
        "gradients": 2000}  # fmt: skip
WIDTHS = {"small": (3, 5, 8, 12, 25, 50, 100), "full": (3, 5, 8, 12, 20, 40, 80, 160, 320, 640)}
PAIRS = {"small": 2, "full": 5}
TOLERANCE = 0.01
"""A barrier, and a fall from an end, that counts as none, in units of the loss."""


def cells(scale: Scale) -> list[Cell]:
    """Every width with some pairs, the widest first, so that no long cell is left for the end."""
    settings = SMALL if scale == "small" else FULL
    return [
        {**settings, "width": width, "pair": pair}
        for width in reversed(WIDTHS[scale])
        for pair in range(PAIRS[scale])
    ]


def measure(cell: Cell, data_dir: Path | None) -> Mapping[str, Any]:
    """Train two networks and join them."""
    problem, train, _ = loaded(cell["problem"], data_dir, cell["samples"])
    inputs = train[0][0].numel()
    solutions: list[dict[str, Tensor]] = []
    model: nn.Module | None = None
    for k in range(2):
        seed = 2 * cell["pair"] + k
        torch.manual_seed(seed)
        model = multilayer_perceptron((inputs, cell["width"], 10), he_normal)
        sgd(
            problem, model, train, rate=0.05, batch=32, steps=cell["steps"], seed=seed,
            momentum=0.9, every=cell["steps"],
        )  # fmt: skip
        polish(risk_on(problem, model, train), cell["polish"])
        solutions.append({name: v.clone() for name, v in model.state_dict().items()})
    assert model is not None
    path = landscape.connect(
        risk_on(problem, model, train),
        solutions[0],
        solutions[1],
        gradients=cell["gradients"],
        points=101,
        require_converged=False,
    )
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "barrier": path.barrier,
        "line_barrier": path.line_barrier,
        "losses": [end.loss for end in path.ends],
        "falls": [end.fall for end in path.ends],
        "converged": path.converged,
        "gradients": path.cost.gradients,
    }


def sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """Verdict, barrier against width, table."""
    settings = measured[0].cell
    widths = sorted({m.cell["width"] for m in measured})
    rows = {w: [m.result for m in measured if m.cell["width"] == w] for w in widths}
    decided = {w: [r for r in rows[w] if max(r["falls"]) <= TOLERANCE] for w in widths}
    joined = [w for w in widths if decided[w] and all(_joined(r) for r in decided[w])]
    parted = [w for w in widths if any(not _joined(r) and r["converged"] for r in decided[w])]
    undecided = [w for w in widths if not decided[w]]
    first = next((w for w in widths if all(v in joined for v in widths if v >= w)), None)
    evidence = (
        f"tolerance {TOLERANCE:g}; every pair joined from width "
        f"{'none' if first is None else first} on; a pair parted by a converged barrier at widths "
        f"{', '.join(map(str, parted)) or 'none'}; undecided, because ends still fall: "
        f"{', '.join(map(str, undecided)) or 'none'}"
    )
    if first is None:
        word = "refused" if undecided and not parted else "does not hold here"
    else:
        word = "holds here"
    return (
        Section(
            "Barrier against width",
            f"{settings['problem']}'s data, {settings['samples']:,} samples, one hidden layer of "
            f"{widths[0]} to {widths[-1]} units, {len(rows[widths[0]])} pairs a width, "
            f"{settings['gradients']:,} gradients a path.",
            conclusions=(
                ("Wide enough networks: arbitrary solutions are connected", word, evidence),
            ),
            panels=(
                Panel(
                    "connected",
                    partial(_draw, rows=rows),
                    "Barrier of the line and of the path against the width",
                    keys=(
                        Key("straight line", PALETTE[1], marker="s"),
                        Key("grown path", PALETTE[0], marker="o"),
                    ),
                ),
            ),
            tables=(_table(rows),),
        ),
    )


def _joined(result: Mapping[str, Any]) -> bool:
    return bool(result["barrier"] <= TOLERANCE)


def _table(rows: Mapping[int, Sequence[Mapping[str, Any]]]) -> DataTable:
    return DataTable(
        [
            "width",
            "#parameters",
            "#losses of the ends",
            "#they can still fall by",
            "#line barrier",
            "#path barrier, each pair",
            "#gradients",
        ],
        [
            Row(
                [
                    TableCell(str(width)),
                    TableCell(f"{found[0]['parameters']:,}"),
                    TableCell(f"{fmean(x for r in found for x in r['losses']):.2g}"),
                    TableCell(f"{max(x for r in found for x in r['falls']):.1g}"),
                    TableCell(f"{fmean(r['line_barrier'] for r in found):.3g}"),
                    TableCell(" ".join(f"{r['barrier']:.2g}" for r in found)),
                    TableCell(f"{fmean(r['gradients'] for r in found):.0f}"),
                ]
            )
            for width, found in rows.items()
        ],
    )


def _draw(axes: Axes, rows: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
    floor = 1e-4
    for key, color, marker in (("line_barrier", PALETTE[1], "s"), ("barrier", PALETTE[0], "o")):
        values = {w: [max(floor, r[key]) for r in found] for w, found in rows.items()}
        axes.plot(list(values), [float(np.median(v)) for v in values.values()], color=color)
        for width, found in values.items():
            axes.plot([width] * len(found), found, marker, color=color, alpha=0.7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_ticks(axes.yaxis)
    axes.set_xticks(list(rows), [str(w) for w in rows])
    axes.minorticks_off()
    axes.set_xlabel("width of the hidden layer")
    axes.set_ylabel("barrier (0 drawn at 0.0001)")
    axes.set_title("Median and every pair")


CONNECTED = TalkExperiment(
    "connected",
    "Are arbitrary solutions connected, and from which width on?",
    "Published: level sets of overparametrized networks are connected (Freeman & Bruna 2017); "
    "barriers between minima fall with width and depth (Draxler et al. 2018, for deep networks on "
    "CIFAR). The talk asks from where on.",
    "L. Sagun 2018 (talk); Freeman & Bruna 2017; Draxler et al. 2018",
    cells,
    measure,
    sections,
    {"small": "One hidden layer on digits; deep networks on CIFAR are not run."},
)
