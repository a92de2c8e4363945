"""What noise does: gradient descent, SGD, and descent with noise of two kinds but one size.

The gradient noise of SGD has a covariance of its own. Two controls tell its amount from its shape:
isotropic noise of the same total variance, and noise of exactly SGD's covariance, which costs one
backward pass: the loss of sample i is weighted by 1/n + (xi_i - mean) / sqrt(B n).

Index legend: n samples, B samples in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib.axes import Axes

from optiscope.report.appearance import PALETTE
from optiscope.report.figures.panel import Panel
from optiscope.report.tables.data_table import Cell as TableCell
from optiscope.report.tables.data_table import DataTable, Row
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.reproduction.talk.experiment import Cell, Measured, TalkExperiment
from optiscope.reproduction.talk.training import Samples, flat, leading, loaded, new_model, risk_on

__all__ = ["METHODS", "NOISE"]

METHODS = {
    "gd": "GD",
    "isotropic": "GD + isotropic noise",
    "sgd": "SGD",
    "covariance": "GD + noise of SGD's covariance",
}
"""By name: the first two should end sharper than the last two."""

SHAPED = ("sgd", "covariance")
SETTINGS = {"problem": "digits_mlp", "samples": 300, "batch": 10, "rate": 0.1}
STEPS = {"small": 1000, "full": 20_000}
SEEDS = {"small": 3, "full": 10}


def cells(scale: Scale) -> list[Cell]:
    """Every method with every seed."""
    return [
        {**SETTINGS, "steps": STEPS[scale], "method": method, "seed": seed}
        for seed in range(SEEDS[scale])
        for method in METHODS
    ]


def measure(cell: Cell, data_dir: Path | None) -> Mapping[str, Any]:
    """Train by one method; largest eigenvalue, distance from the start, losses and accuracies."""
    problem, train, test = loaded(cell["problem"], data_dir, cell["samples"])
    model = new_model(problem, cell["seed"])
    start = flat(model)
    generator = torch.Generator().manual_seed(1000 + cell["seed"])
    parameters = list(model.parameters())
    for _ in range(cell["steps"]):
        step = _gradient(cell, problem.loss, model, train, generator)
        with torch.no_grad():
            for p, g in zip(parameters, step, strict=True):
                p.sub_(g, alpha=cell["rate"])
    risk = risk_on(problem, model, train)
    figures = {f"train_{k}": v for k, v in risk.evaluate().items()}
    figures |= {f"test_{k}": v for k, v in risk_on(problem, model, test).evaluate().items()}
    distance = float(torch.linalg.vector_norm(flat(model) - start))
    return {**leading(risk, 3), **figures, "distance": distance}


def _gradient(
    cell: Cell, loss: Any, model: Any, train: Samples, generator: torch.Generator
) -> list[torch.Tensor]:
    """The gradient of the full loss, with noise as the method says."""
    inputs, targets = train
    parameters = list(model.parameters())
    count, batch, method = len(inputs), cell["batch"], cell["method"]
    if method == "sgd":
        chosen = torch.randint(count, (batch,), generator=generator)
        mean = loss(model(inputs[chosen]), targets[chosen]).mean()
        return list(torch.autograd.grad(mean, parameters))
    losses = loss(model(inputs), targets)
    if method == "gd":
        return list(torch.autograd.grad(losses.mean(), parameters))
    drawn = torch.randn(count, generator=generator)
    weights = (drawn - drawn.mean()) / math.sqrt(batch * count)
    if method == "covariance":
        return list(torch.autograd.grad((losses * (weights + 1 / count)).sum(), parameters))
    full = torch.autograd.grad(losses.mean(), parameters, retain_graph=True)
    shaped = torch.autograd.grad((losses * weights).sum(), parameters)
    size = math.sqrt(sum(float(g.square().sum()) for g in shaped))
    round_noise = [torch.randn(p.shape, generator=generator) for p in parameters]
    norm = math.sqrt(sum(float(g.square().sum()) for g in round_noise))
    return [g + z * (size / norm) for g, z in zip(full, round_noise, strict=True)]


def sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """Verdict, table and figure."""
    first = {
        name: [m.result["eigenvalues"][0] for m in measured if m.cell["method"] == name]
        for name in METHODS
    }
    settings = measured[0].cell
    seeds = len(first["gd"])
    return (
        Section(
            "Largest eigenvalue of the Hessian where training ends",
            f"{settings['problem']}, {settings['samples']} training samples, batch "
            f"{settings['batch']}, rate {settings['rate']}, {settings['steps']:,} steps, {seeds} "
            "seeds. Isotropic noise has the norm that noise of SGD's covariance has in that step.",
            conclusions=tuple(_conclusions(measured, first)),
            panels=(
                Panel(
                    "noise",
                    partial(_draw, values=first),
                    "Largest eigenvalue by method, a point for each seed",
                    left=2.0,
                ),
            ),
            tables=(_table(measured),),
        ),
    )


def _conclusions(
    measured: Sequence[Measured], first: Mapping[str, list[float]]
) -> list[tuple[str, str, str]]:
    lower = max(max(first[name]) for name in SHAPED)
    upper = min(min(first[name]) for name in METHODS if name not in SHAPED)
    seeds = len(first["gd"])
    by_seed = sum(
        max(first[name][k] for name in SHAPED) < min(first["gd"][k], first["isotropic"][k])
        for k in range(seeds)
    )
    unsure = [m for m in measured if not m.result["converged"]]
    claim = "The shape of SGD's noise, not its amount, leads to flatter places"
    evidence = (
        f"largest eigenvalue of SGD and of noise of its covariance below that of GD and of "
        f"isotropic noise in {by_seed} of {seeds} seeds ({lower:.3g} at most against {upper:.3g} "
        "at least over all seeds)"
    )
    if unsure:
        verdict = "refused"
        evidence = f"{len(unsure)} eigenvalues did not converge; {evidence}"
    elif by_seed == seeds:
        verdict = "holds here" if lower < upper else "holds in every seed, groups overlap"
    else:
        verdict = "does not hold here"
    accuracy = {
        name: [m.result["test_accuracy"] for m in measured if m.cell["method"] == name]
        for name in METHODS
    }
    spread = max(map(fmean, accuracy.values())) - min(map(fmean, accuracy.values()))
    width = max(max(v) - min(v) for v in accuracy.values())
    test = (
        "GD and SGD generalize alike (published: 194 and 174 mistakes of a net on MNIST)",
        "refused" if spread < width else "they differ here",
        f"mean test accuracies differ by {100 * spread:.2g} points, seeds of one method by up to "
        f"{100 * width:.2g}; the 500-300 network on MNIST was not run",
    )
    return [(claim, verdict, evidence), test]


def _table(measured: Sequence[Measured]) -> DataTable:
    rows = []
    for name, label in METHODS.items():
        found = [m.result for m in measured if m.cell["method"] == name]
        cells_of_row = [
            TableCell(label),
            TableCell(" ".join(f"{r['eigenvalues'][0]:.3g}" for r in found)),
        ]
        for key, scale in (
            ("distance", 1), ("train_loss", 1), ("test_loss", 1), ("test_accuracy", 100),
        ):  # fmt: skip
            cells_of_row.append(TableCell(f"{scale * fmean(r[key] for r in found):.3g}"))
        rows.append(Row(cells_of_row))
    return DataTable(
        [
            "method",
            "#largest eigenvalue, each seed",
            "#distance from start",
            "#training loss",
            "#test loss",
            "#test accuracy (%)",
        ],
        rows,
        "Means over seeds, but for the eigenvalues.",
    )


def _draw(axes: Axes, values: Mapping[str, list[float]]) -> None:
    for row, (name, found) in enumerate(values.items()):
        color = PALETTE[0] if name in SHAPED else PALETTE[1]
        axes.plot(found, [row] * len(found), "o", color=color, alpha=0.8)
    axes.set_yticks(range(len(values)), [METHODS[name] for name in values])
    axes.invert_yaxis()
    axes.set_xlim(left=0.0)
    axes.set_xlabel("largest eigenvalue")
    axes.set_title("One point a seed")


NOISE = TalkExperiment(
    "noise",
    "What noise does: GD, SGD, and GD with noise of two shapes",
    "Does the noise of SGD matter by its amount or by its shape? The talk asks whether GD with "
    "noise behaves as SGD does, and shows that GD and SGD make about as many mistakes (194 and "
    "174 of 10,000, a 500-300 network on MNIST).",
    "L. Sagun 2018, An Empirical Look at the Loss Landscape (talk)",
    cells,
    measure,
    sections,
    {"small": "The 500-300 network on MNIST is left out: full-batch descent takes hours on two "
              "cores."},
)  # fmt: skip
