"""Gradient descent against SGD: a network of five neurons, and the 500-300 network on MNIST.

Both start from the same weights, take steps of the same length and are compared by the mistakes on
the test set and by the training loss where they end. The answer of the talk is that it hardly
matters; a difference counts here only where paired seeds show one.

Index legend: n samples, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import nn

from optiscope.problems.models.dense import multilayer_perceptron
from optiscope.problems.models.initialise import he_normal
from optiscope.report.appearance import PALETTE
from optiscope.report.figures.panel import Panel
from optiscope.report.legend import Key
from optiscope.reproduction.experiments import Scale
from optiscope.reproduction.sections import Section
from optiscope.reproduction.talk.beside import Paired, beside, paired, plain_ticks
from optiscope.reproduction.talk.experiment import Cell, Measured, TalkExperiment
from optiscope.reproduction.talk.training import loaded, risk_on, sgd

__all__ = ["GD_SGD"]

NEURONS = {"problem": "digits_mlp", "samples": 1197, "hidden": [5], "batch": 10, "steps": 6000}
MNIST = {"problem": "mnist_mlp", "samples": 2000, "hidden": [500, 300], "batch": 50,
         "steps": 300}  # fmt: skip
SMALL = ({**NEURONS, "rate": 0.1}, {**MNIST, "rate": 0.1})
FULL = (
    {**NEURONS, "steps": 100_000, "rate": 0.1},
    {**MNIST, "samples": 50_000, "batch": 100, "steps": 50_000, "rate": 0.1},
)
SEEDS = {"small": (6, 1), "full": (20, 5)}
PUBLISHED = {"sgd": 174, "gd": 194}
"""Mistakes of 10,000 of the 500-300 network."""


def cells(scale: Scale) -> list[Cell]:
    """Both methods with every seed, of the networks in turn."""
    return [
        {**settings, "method": method, "seed": seed}
        for settings, seeds in zip(SMALL if scale == "small" else FULL, SEEDS[scale], strict=True)
        for seed in range(seeds)
        for method in ("gd", "sgd")
    ]


def measure(cell: Cell, data_dir: Path | None) -> Mapping[str, Any]:
    """Train by one method; mistakes and losses at some steps on the way, and at the end."""
    problem, train, test = loaded(cell["problem"], data_dir, cell["samples"])
    torch.manual_seed(cell["seed"])
    model = multilayer_perceptron((train[0][0].numel(), *cell["hidden"], 10), he_normal)
    on_train, on_test = risk_on(problem, model, train), risk_on(problem, model, test)
    looks = sorted({round(cell["steps"] ** (k / 8)) for k in range(9)})
    steps, train_loss, mistakes = [], [], []

    def look(step: int) -> None:
        if step in looks:
            figures = on_test.evaluate()
            steps.append(step)
            train_loss.append(float(on_train.value()))
            mistakes.append(round((1 - figures["accuracy"]) * len(test[0])))

    sgd(
        problem, model, train,
        rate=cell["rate"],
        batch=cell["samples"] if cell["method"] == "gd" else cell["batch"],
        steps=cell["steps"], seed=cell["seed"], every=cell["steps"], on_step=look,
    )  # fmt: skip
    return {
        "steps": steps,
        "train_loss": train_loss,
        "mistakes": mistakes,
        "tested": len(test[0]),
        "parameters": _size(model),
    }


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """One for each network."""
    networks = list(dict.fromkeys(tuple(m.cell["hidden"]) for m in measured))
    return tuple(
        _section([m for m in measured if tuple(m.cell["hidden"]) == hidden]) for hidden in networks
    )


def _section(measured: Sequence[Measured]) -> Section:
    cell = measured[0].cell
    found = {
        method: [m.result for m in measured if m.cell["method"] == method]
        for method in ("gd", "sgd")
    }
    name = "-".join(map(str, cell["hidden"]))
    tested = found["gd"][0]["tested"]
    ends = {method: [r["mistakes"][-1] for r in rows] for method, rows in found.items()}
    result = paired(ends["gd"], ends["sgd"])
    ours_published = len(cell["hidden"]) > 1
    return Section(
        f"Network with {name} hidden units",
        f"{cell['problem']}'s data, {cell['samples']:,} samples, "
        f"{found['gd'][0]['parameters']:,} parameters, rate {cell['rate']}, {cell['steps']:,} "
        f"steps of all samples (GD) or of {cell['batch']} (SGD), {len(ends['gd'])} seeds.",
        conclusions=(_conclusion(name, result, found),),
        panels=(
            Panel(
                f"gd-sgd-{name}",
                partial(_draw, found=found),
                "Training loss against the step for GD and SGD",
                keys=(Key("GD", PALETTE[0]), Key("SGD", PALETTE[1], (5, 2))),
            ),
        ),
        tables=(
            beside(
                [
                    (
                        f"{label}: mistakes of {tested:,}",
                        f"{PUBLISHED[method]} of 10,000" if ours_published else "no figure",
                        " ".join(map(str, ends[method])),
                        "shorter training on fewer samples" if ours_published else "",
                    )
                    for method, label in (("gd", "GD"), ("sgd", "SGD"))
                ]
            ),
        ),
    )


def _conclusion(
    name: str, result: Paired, found: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[str, str, str]:
    gap = [fmean(r["train_loss"][-1] for r in found[m]) for m in ("gd", "sgd")]
    words = (
        f"{result.words('mistakes, GD less SGD')}; training loss {gap[0]:.3g} (GD) and "
        f"{gap[1]:.3g} (SGD)"
    )
    claim = f"Network {name}: GD and SGD end at solutions that generalize alike"
    if result.undecided:
        return claim, "undecided", words
    return claim, "does not hold here", f"{words}; after as many steps, not as many samples"


def _draw(axes: Axes, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for (_, rows), color, dashes in zip(
        found.items(), PALETTE, ((None, None), (5, 2)), strict=False
    ):
        for row in rows:
            axes.plot(row["steps"], [max(v, 1e-6) for v in row["train_loss"]], color=color,
                      dashes=dashes, alpha=0.8)  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_ticks(axes.xaxis, axes.yaxis)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.set_title("Every seed")


GD_SGD = TalkExperiment(
    "gd-sgd",
    "Gradient descent against SGD: does it matter?",
    "Published: a 500-300 network on MNIST (450,000 parameters) makes 194 mistakes of 10,000 after "
    "GD, 174 after SGD; a network of five neurons behaves alike with both.",
    "L. Sagun 2018, An Empirical Look at the Loss Landscape (talk)",
    cells,
    measure,
    sections,
    {"small": "The 500-300 network sees 2,000 of MNIST's images for 300 steps, once: GD over all "
              "of them until it has converged takes days on two cores."},
)  # fmt: skip
