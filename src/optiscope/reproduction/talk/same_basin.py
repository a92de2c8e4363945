"""Do different algorithms end in one basin? With and without preprocessing, two losses.

From the same initial weights several algorithms are trained to the same loss level, brought to a
minimum by L-BFGS, and every pair is joined by a path. Two solutions share a basin, at a tolerance,
where the path rises no higher.

Index legend: K solutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from optiscope import landscape
from optiscope.landscape.basins import spanning_tree
from optiscope.objective.risk import EmpiricalRisk
from optiscope.problems.models.dense import multilayer_perceptron
from optiscope.problems.models.initialise import he_normal
from optiscope.report.appearance import PALETTE
from optiscope.report.figures.panel import Panel
from optiscope.report.tables.data_table import Cell as TableCell
from optiscope.report.tables.data_table import DataTable, Row
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.reproduction.talk.beside import plain_ticks
from optiscope.reproduction.talk.experiment import Cell, Measured, TalkExperiment
from optiscope.reproduction.talk.split import LOSSES
from optiscope.reproduction.talk.training import loaded, polish

__all__ = ["SAME_BASIN"]

ALGORITHMS: dict[str, Callable[[Sequence[Tensor]], Optimizer]] = {
    "SGD": lambda p: SGD(p, lr=0.05),
    "momentum": lambda p: SGD(p, lr=0.02, momentum=0.9),
    "Adam": lambda p: Adam(p, lr=2e-3),
}
SMALL = {"problem": "digits_mlp", "samples": 400, "hidden": 40, "batch": 20, "epochs": 30,
         "polish": 300, "gradients": 300, "points": 51}  # fmt: skip
FULL = {**SMALL, "problem": "mnist_mlp", "samples": 5000, "hidden": 200, "epochs": 100,
        "polish": 2000, "gradients": 2000, "points": 201}  # fmt: skip
SEEDS = {"small": 2, "full": 5}
TOLERANCE = {"log loss": 0.01, "squared error": 0.01}
"""Largest barrier within a basin, in units of the loss."""
USED = ("log loss", "squared error")


def cells(scale: Scale) -> list[Cell]:
    """Both losses, with and without preprocessing, every seed."""
    settings = SMALL if scale == "small" else FULL
    return [
        {**settings, "loss": loss, "preprocessed": preprocessed, "seed": seed}
        for loss in USED
        for preprocessed in (True, False)
        for seed in range(SEEDS[scale])
    ]


def measure(cell: Cell, data_dir: Path | None) -> Mapping[str, Any]:
    """Train with every algorithm from one start; barriers of all pairs."""
    _, (inputs, targets), _ = loaded(cell["problem"], data_dir, cell["samples"])
    inputs = inputs.flatten(1)
    if cell["preprocessed"]:
        inputs = (inputs - inputs.mean(0)) / inputs.std(0).clamp_min(0.1)
    loss = LOSSES[cell["loss"]]
    torch.manual_seed(cell["seed"])
    model = multilayer_perceptron((inputs.shape[1], cell["hidden"], 10), he_normal)
    start = _copy(model)
    risk = EmpiricalRisk(model, loss, [(inputs, targets)])
    solutions = []
    for make in ALGORITHMS.values():
        model.load_state_dict(start)
        generator = torch.Generator().manual_seed(cell["seed"])
        optimizer = make(list(model.parameters()))
        for _ in range(cell["epochs"]):
            for chosen in torch.randperm(len(inputs), generator=generator).split(cell["batch"]):
                optimizer.zero_grad()
                loss(model(inputs[chosen]), targets[chosen]).mean().backward()
                optimizer.step()
        polish(risk, cell["polish"])
        solutions.append(_copy(model))
    model.load_state_dict(start)
    basins = landscape.same_basin(
        risk, solutions, tolerance=TOLERANCE[cell["loss"]], gradients=cell["gradients"],
        points=cell["points"], require_converged=False,
    )  # fmt: skip
    return {
        "losses": [end.loss for end in basins.ends],
        "falls": [end.fall for end in basins.ends],
        "barriers": basins.barriers.tolist(),
        "line_barriers": basins.line_barriers.tolist(),
        "heights": basins.heights.tolist(),
        "converged": basins.converged,
        "same": basins.same,
        "verdict": basins.verdict,
        "gradients": basins.cost.gradients,
    }


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """Verdicts, barriers by pair, table."""
    cell = measured[0].cell
    names = list(ALGORITHMS)
    sure = {id(m): max(m.result["falls"]) <= TOLERANCE[m.cell["loss"]] for m in measured}
    words = []
    settings = list(dict.fromkeys((m.cell["loss"], m.cell["preprocessed"]) for m in measured))
    decided = [m for m in measured if sure[id(m)]]
    same = [m for m in decided if m.result["same"]]
    parted = [m for m in decided if not m.result["same"] and m.result["converged"]]
    for loss, preprocessed in settings:
        found = [m for m in measured if (m.cell["loss"], m.cell["preprocessed"])
                 == (loss, preprocessed)]  # fmt: skip
        joined = sum(m.result["same"] for m in found if sure[id(m)])
        words.append(f"{_label(loss, preprocessed)}: {joined} of {len(found)} seeds")
    limits = ", ".join(f"{TOLERANCE[x]:g} ({x})" for x in dict.fromkeys(s[0] for s in settings))
    verdict = (
        "refused" if not decided
        else "holds here" if len(same) == len(measured)
        else "does not hold here" if parted
        else "undecided"
    )  # fmt: skip
    return (
        Section(
            "Solutions of several algorithms from one start",
            f"{cell['problem']}'s data, {cell['samples']:,} samples, one hidden layer of "
            f"{cell['hidden']} units; {', '.join(names)} for {cell['epochs']} epochs, then L-BFGS; "
            f"paths of at most {cell['gradients']:,} gradients, tolerance "
            f"{limits}.",
            conclusions=(
                (
                    "Different algorithms end in one basin, with and without preprocessing",
                    verdict,
                    f"all pairs joined in {'; '.join(words)}; "
                    f"{len(measured) - len(decided)} of {len(measured)} are refused because their "
                    f"ends can still fall by more than the tolerance; {len(parted)} are parted by "
                    "converged barriers",
                ),
            ),
            panels=(
                Panel(
                    "same-basin",
                    partial(_draw, measured=measured),
                    "Barrier on the straight line against barrier on the path, a point for a pair",
                ),
            ),
            tables=(_table(measured, names),),
        ),
    )


def _label(loss: str, preprocessed: bool) -> str:
    return f"{loss}, {'standardized' if preprocessed else 'raw'}"


def _table(measured: Sequence[Measured], names: Sequence[str]) -> DataTable:
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    rows = []
    for m in measured:
        r = m.result
        tree = spanning_tree(torch.tensor(r["heights"], dtype=torch.float64))
        rows.append(
            Row(
                [
                    TableCell(
                        f"{_label(m.cell['loss'], m.cell['preprocessed'])}, seed {m.cell['seed']}"
                    ),
                    TableCell(" ".join(f"{v:.1g}" for v in r["losses"])),
                    TableCell(f"{max(r['falls']):.1g}"),
                    *(
                        TableCell(
                            f"{r['line_barriers'][i][j]:.2g} → {r['barriers'][i][j]:.2g}"
                            + ("*" if (i, j) in tree else "")
                        )
                        for i, j in pairs
                    ),
                ]
            )
        )
    return DataTable(
        ["setting", "#losses", "#can fall by",
         *(f"#{names[i]} – {names[j]}" for i, j in pairs)],
        rows,
        "Barrier on the straight line → on the path. * in the minimum spanning tree over the "
        "heights of the passes.",
    )  # fmt: skip


def _draw(axes: Axes, measured: Sequence[Measured]) -> None:
    floor = 1e-4
    for m in measured:
        upper = np.triu_indices(len(m.result["losses"]), 1)
        line, path = (np.array(m.result[k])[upper] for k in ("line_barriers", "barriers"))
        color = PALETTE[USED.index(m.cell["loss"]) if m.cell["loss"] in USED else 2]
        axes.plot(np.maximum(line, floor), np.maximum(path, floor),
                  "o" if m.cell["preprocessed"] else "s", color=color, alpha=0.8)  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_ticks(axes.xaxis, axes.yaxis)
    axes.set_xlabel("barrier on the straight line")
    axes.set_ylabel("barrier on the path (0 drawn at 0.0001)")
    axes.set_title("A point for each pair")


SAME_BASIN = TalkExperiment(
    "same-basin",
    "Do different algorithms end in one basin?",
    "The talk asks whether algorithms differ in the basin where they end, with and without "
    "preprocessing, for squared error and log loss. Published: small and large batches end in one "
    "basin (Sagun et al. 2017); barriers between minima are low for wide networks (Draxler et al. "
    "2018).",
    "L. Sagun 2018 (talk); Sagun et al. 2017; Draxler et al. 2018",
    cells,
    measure,
    sections,
    {"small": "One hidden layer on digits."},
)
