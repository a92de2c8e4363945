"""H = G + R over training: when does the Gauss-Newton part become the Hessian?

For each of four losses a network is trained and the Hessian split at some epochs: the share of the
residual in the Frobenius norm, and the largest eigenvalues of all three matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from optiscope import curvature
from optiscope.objective.risk import EmpiricalRisk
from optiscope.report.appearance import PALETTE
from optiscope.report.figures.panel import Panel
from optiscope.report.legend import Key
from optiscope.report.tables.data_table import Cell as TableCell
from optiscope.report.tables.data_table import DataTable, Row
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.reproduction.talk.experiment import Cell, Measured, TalkExperiment
from optiscope.reproduction.talk.training import Samples, loaded, new_model

__all__ = ["LOSSES", "SPLIT"]


def _one_hot(targets: Tensor, classes: int) -> Tensor:
    return F.one_hot(targets, classes).float()


def _signs(targets: Tensor, classes: int) -> Tensor:
    return 2 * _one_hot(targets, classes) - 1


def _squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - _one_hot(targets, outputs.shape[1])).square().sum(1)


def _hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    return (1 - _signs(targets, outputs.shape[1]) * outputs).clamp_min(0).sum(1)


def _squared_hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    return (1 - _signs(targets, outputs.shape[1]) * outputs).clamp_min(0).square().sum(1)


def _log_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log loss": _log_loss,
    "squared error": _squared,
    "squared hinge": _squared_hinge,
    "hinge": _hinge,
}
"""One value for each sample, of the outputs [B, K] and classes [B]."""

RATES = {"log loss": 0.1, "squared error": 0.02, "squared hinge": 0.01, "hinge": 0.02}
SMALL = {"problem": "digits_mlp", "samples": 400, "batch": 32, "epochs": [0, 1, 4, 20],
         "probes": 4, "k": 3}  # fmt: skip
FULL = {**SMALL, "problem": "mnist_mlp", "samples": 10_000, "epochs": [0, 1, 4, 20, 60],
        "probes": 10}  # fmt: skip
SEEDS = {"small": 2, "full": 5}
STANDS = 0.15
"""Share of R below which G stands for H, as `curvature.decompose` has it."""


def cells(scale: Scale) -> list[Cell]:
    """Every loss with every seed."""
    settings = SMALL if scale == "small" else FULL
    return [
        {**settings, "loss": loss, "rate": RATES[loss], "seed": seed}
        for loss in LOSSES
        for seed in range(SEEDS[scale])
    ]


def measure(cell: Cell, data_dir: Path | None) -> Mapping[str, Any]:
    """Train with one loss; the split at the chosen epochs."""
    problem, train, _ = loaded(cell["problem"], data_dir, cell["samples"])
    model = new_model(problem, cell["seed"])
    loss = LOSSES[cell["loss"]]
    optimizer = torch.optim.SGD(model.parameters(), lr=cell["rate"])
    generator = torch.Generator().manual_seed(cell["seed"])
    rows = []
    for epoch in range(max(cell["epochs"]) + 1):
        if epoch in cell["epochs"]:
            rows.append(_row(EmpiricalRisk(model, loss, list(_batches(train))), cell))
        for chosen in torch.randperm(len(train[0]), generator=generator).split(cell["batch"]):
            optimizer.zero_grad()
            loss(model(train[0][chosen]), train[1][chosen]).mean().backward()
            optimizer.step()
    return {name: [row[name] for row in rows] for name in rows[0]}


def _batches(samples: Samples) -> Sequence[Samples]:
    return list(zip(samples[0].split(1000), samples[1].split(1000), strict=True))


def _row(risk: EmpiricalRisk, cell: Cell) -> dict[str, Any]:
    split = curvature.decompose(risk, k=cell["k"], probes=cell["probes"], tol=1e-2, exact=False)
    parts = {"H": split.hessian, "G": split.gauss_newton, "R": split.residual}
    return {
        "train_loss": float(risk.value()),
        "share": split.share.value,
        "share_error": split.share.standard_error,
        **{f"top_{name}": part.top.value for name, part in parts.items()},
        **{f"trace_{name}": part.trace.value for name, part in parts.items()},
        "finding": split.finding,
        "gradients": split.cost.gradient_equivalents,
    }


def sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """Verdicts, the share of R over training, table."""
    cell = measured[0].cell
    names = [n for n in LOSSES if any(m.cell["loss"] == n for m in measured)]
    rows = {n: [m.result for m in measured if m.cell["loss"] == n] for n in names}
    return (
        Section(
            "The residual's share over training",
            f"{cell['problem']}, {cell['samples']:,} samples, SGD with batches of {cell['batch']}, "
            f"{len(rows[names[0]])} seeds; |R| / |H| in the Frobenius norm from {cell['probes']} "
            "probes a layer. The slide writes the hinge max(0, sy); the usual one, "
            "max(0, 1 - sy), is used.",
            conclusions=tuple(_conclusions(rows)),
            panels=(
                Panel(
                    "split",
                    partial(_draw, epochs=cell["epochs"], rows=rows),
                    "Share of the residual in the Hessian against the epoch, for each loss",
                    keys=tuple(
                        Key(name, color, marker=marker)
                        for name, color, marker in zip(names, PALETTE, "osDv", strict=False)
                    ),
                ),
            ),
            tables=(_table(rows, cell["epochs"]),),
        ),
    )


def _conclusions(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[tuple[str, str, str]]:
    found = []
    smooth = [n for n in rows if n != "hinge"]
    if smooth:
        ends = {n: [r["share"][-1] for r in rows[n]] for n in smooth}
        falls = all(r["share"][-1] < r["share"][0] for n in smooth for r in rows[n])
        small = all(v <= STANDS for values in ends.values() for v in values)
        found.append(
            (
                "Late in training the Hessian is its Gauss-Newton part (squared error, squared "
                "hinge, log loss)",
                "holds here" if falls and small else "falls, not that far" if falls
                else "does not hold here",
                "; ".join(
                    f"{n}: {fmean(r['share'][0] for r in rows[n]):.0%} at the start, "
                    f"{fmean(ends[n]):.0%} at the end"
                    for n in smooth
                ),
            )
        )  # fmt: skip
    if "hinge" in rows:
        tops = [abs(v) for r in rows["hinge"] for v in r["top_G"]]
        found.append(
            (
                "With the hinge the Gauss-Newton part vanishes: all curvature is the model's own",
                "holds here" if max(tops) == 0 else "does not hold here",
                f"largest eigenvalue of G over training: {max(tops):.3g}; of R at the end: "
                f"{fmean(r['top_R'][-1] for r in rows['hinge']):.3g}",
            )
        )
    return found


def _table(rows: Mapping[str, Sequence[Mapping[str, Any]]], epochs: Sequence[int]) -> DataTable:
    return DataTable(
        ["loss, epoch", "#training loss", "#|R| / |H|, each seed", "#top of H", "#of G", "#of R",
         "#tr R / tr H"],
        [
            Row(
                [
                    TableCell(f"{name}, {epoch}"),
                    TableCell(f"{fmean(r['train_loss'][i] for r in found):.3g}"),
                    TableCell(
                        " ".join(f"{r['share'][i]:.3f} ± {r['share_error'][i]:.3f}" for r in found)
                    ),
                    *(
                        TableCell(f"{fmean(r[f'top_{part}'][i] for r in found):.3g}")
                        for part in "HGR"
                    ),
                    TableCell(
                        f"{fmean(r['trace_R'][i] / (r['trace_H'][i] or 1.0) for r in found):.1g}"
                    ),
                ]
            )
            for name, found in rows.items()
            for i, epoch in enumerate(epochs)
        ],
        "± standard error from the probes. With ReLU tr R = 0 to rounding.",
    )  # fmt: skip


def _draw(
    axes: Axes, epochs: Sequence[int], rows: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    places = range(len(epochs))
    for (_, found), color, marker in zip(rows.items(), PALETTE, "osDv", strict=False):
        for r in found:
            axes.plot(places, r["share"], color=color, marker=marker, alpha=0.8)
    axes.set_xticks(places, [str(e) for e in epochs])
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("|R| / |H|")
    axes.set_title("Every seed")


SPLIT = TalkExperiment(
    "split",
    "H = G + R over training",
    "The talk splits the Hessian into the Gauss-Newton part and the rest for squared error, hinge, "
    "squared hinge and log loss, and asks how large the rest is. No figures were published.",
    "L. Sagun 2018, An Empirical Look at the Loss Landscape (talk)",
    cells,
    measure,
    sections,
    {"small": "digits in place of MNIST."},
)
